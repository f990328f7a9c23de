"""Sources of the topology, the guard against a wrong one, and the zone of this process."""
