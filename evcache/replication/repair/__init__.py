"""Read repair: the keys that are compared, the comparison, and the copies."""
