"""Tools of operators, on top of the client: what a command of the command line does, without its options and its output."""
