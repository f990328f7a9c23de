"""Reports for operators: the state of one key in all zones, and the load of servers. Commands print them."""
