"""Routing: the node that holds a key, and the order in which a read asks zones."""
