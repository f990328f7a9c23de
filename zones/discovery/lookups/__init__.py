"""Sources of the nodes of one zone: DNS, and configuration endpoints of managed services."""
