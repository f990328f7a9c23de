"""Loads: single flight, leases, calls of loaders, and the fill of zones."""
