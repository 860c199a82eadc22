"""The command line: one file per command group, and nothing heavy imported before a command needs it."""
