"""Tools of operators that work on whole zones, below the client: examination of their state."""
