"""The memcached protocol as pure functions: requests to bytes, bytes to replies.

Nothing here does I/O, reads a clock or knows asyncio, so every rule can be tested with plain calls.
"""
