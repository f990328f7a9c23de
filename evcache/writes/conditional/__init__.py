"""Conditional writes: the coordinator of a key decides, and the decision goes to the other zones."""
