"""Clients that write and read while zones die, hang and come back, and a check of every result that they received.

python -m integration.chaos --seconds 60 --seed 7
"""
