"""Tools for operators. They know nothing of terminals. Most work on zones and nodes, below the client; `bench` uses a client."""
