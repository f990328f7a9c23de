"""A small shop on Starlette: products from a slow database, cached in three zones, with traces and metrics.

`python -m examples.service` runs it. README.md lists requests to try.
"""
