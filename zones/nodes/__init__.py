"""Nodes: connections to one memcached server, their handshake and their replacement."""
