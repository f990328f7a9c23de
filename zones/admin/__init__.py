"""Administration of one server: its statistics, its settings, and the list of its keys. No operation of the cache."""
