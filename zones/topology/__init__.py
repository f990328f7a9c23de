"""Topology: the zones and nodes of a cache, and the sources that name them."""
