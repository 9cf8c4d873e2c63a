"""The command line: one small file a verb; torch is imported only when a verb needs it."""
