"""Memcached protocol as pure functions: requests to bytes, bytes to replies.

No module does I/O, reads a clock or knows asyncio, so plain calls test every rule.
"""
