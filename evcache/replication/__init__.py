"""Replication: every zone is a last-writer-wins register, ordered by versions."""
