"""Writes to all zones: unconditional writes, and conditional writes that a coordinator decides."""
