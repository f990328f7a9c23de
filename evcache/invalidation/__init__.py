"""Invalidation: messages between processes that drop entries of near caches."""
