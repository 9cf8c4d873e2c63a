"""The command line: one small file for each command; torch is imported only when a command needs it."""
