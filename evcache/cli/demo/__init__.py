"""Command `evcache demo`: an outage of the local zone under traffic."""
