"""State of one key in all zones: what each zone holds, and the effect on reads and repairs."""
