"""A small shop on Starlette: products from a slow database, cached in three zones, traced and measured with OpenTelemetry.

`python -m examples.service` runs it; README.md says what to try.
"""
