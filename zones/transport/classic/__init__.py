"""The classic transport, for servers that speak only the classic text protocol."""
