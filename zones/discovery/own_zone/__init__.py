"""Zone of this process, as its environment or the metadata service of its cloud names it."""
