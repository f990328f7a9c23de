"""Read-through: loads of values that the cache does not have."""
