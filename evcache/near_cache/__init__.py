"""The near cache: entries in this process in front of the zones, and their coherence."""
