"""Clients that write and read while zones die, hang and come back, and a check of everything that they were told.

python -m integration.chaos --seconds 60 --seed 7
"""
