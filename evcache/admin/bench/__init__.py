"""Measurement of a user's own zones: a bounded load on keys of its own, with limits that stop it."""
