"""Transports: the connections that carry a node's requests. The pipelined transport speaks the meta protocol."""
