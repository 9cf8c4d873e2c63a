"""Asking: batches, methods, records, and several processes at one run."""
