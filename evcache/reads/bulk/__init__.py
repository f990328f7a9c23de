"""Bulk reads: many keys from one zone or from several."""
