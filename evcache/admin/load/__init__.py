"""Load of servers over time, as `evcache top` shows it."""
