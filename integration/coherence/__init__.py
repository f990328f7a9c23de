"""Clients with near caches that read and write through slow wires, in virtual time, and a check of every near hit.

None may be older than an announcement that its client had heard before. Three runs with the same seed: as it is; without
floors, so that what a replica still has is kept; and without flights too, so that what was on its way is. The last two have
to find what the first must not, or the first has shown nothing.

python -m integration.coherence --seconds 600 --seed 7
"""
