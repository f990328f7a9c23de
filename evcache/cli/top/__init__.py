"""Command `evcache top`: the load of each node, again and again."""
