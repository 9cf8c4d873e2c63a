"""Searching settings on a tuning split, and testing the search."""
