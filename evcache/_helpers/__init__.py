"""Helpers of every room: background tasks, the event loop, retries, the journal in SQLite."""
