"""Failover of reads: the rule, its budget, and its use for one key and for many."""
