"""Side by side with other clients: `python -m benchmarks`."""
