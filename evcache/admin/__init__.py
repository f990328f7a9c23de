"""Tools for operators. They work on zones and nodes, below the client, and know nothing of terminals."""
