"""The command line: one module a command, the start of the process, and its streams."""
