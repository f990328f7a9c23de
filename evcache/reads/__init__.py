"""Reads from zones: the local zone, failover, hedged reads, quorum reads and bulk reads."""
