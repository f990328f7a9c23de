"""Tools for operators, which know nothing of terminals.

Most work on zones and nodes, below the client. `bench` uses a client.
"""
