"""Benchmarks as data, a runner that can be killed, and statistics that say what a difference is worth."""
