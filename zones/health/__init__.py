"""Health of nodes: circuit breakers, slow start and the lag of the event loop. No I/O."""
