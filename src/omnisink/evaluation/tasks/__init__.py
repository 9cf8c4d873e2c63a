"""Benchmarks as data: questions, prompts, parsers, metrics, and what is wrong with a folder of them."""
