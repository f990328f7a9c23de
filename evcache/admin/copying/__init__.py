"""Copies of items from zone to zone, and comparisons of two zones."""
