"""FaultProxy: a TCP proxy in front of a server that injects faults."""
