"""Commands: the requests by which one node receives a write."""
