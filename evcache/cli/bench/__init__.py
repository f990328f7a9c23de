"""Command `evcache bench`: latency and throughput of the user's own zones."""
