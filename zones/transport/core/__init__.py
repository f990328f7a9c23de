"""The part of a connection that exists twice: compiled, and in Python. Both read replies and find their requests."""
