"""Clients with near caches that read and write through slow wires, in virtual time, and a check of every near hit.

No near hit may be older than an invalidation message that its client received before. The program makes three runs with the
same seed. The first has all guards. The second has no version fences, so the near cache stores old values of slow replicas.
The third also does not discard fetches that were in flight during an invalidation. Runs two and three have to find stale
hits; otherwise the first run proves nothing.

python -m integration.coherence --seconds 600 --seed 7
"""
