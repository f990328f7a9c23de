"""What a node's requests travel on: the seam, and the transport for servers that only speak the classic text protocol.

The other transport, pipelined and for the meta protocol, is `zones.connection.Connection`.
"""
