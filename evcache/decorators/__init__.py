"""Caching of functions: the decorator `cached` and the keys of calls."""
