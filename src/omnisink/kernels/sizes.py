"""Whole numbers by which kernels are cut into programs and blocks.

Triton's `cdiv` and `next_power_of_2` are there for kernels too, and take two microseconds of the host at each call.
"""

from __future__ import annotations


def pieces(whole: int, part: int) -> int:
    """Return how many parts of a size a whole is covered by."""
    return -(-whole // part)


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least a positive number."""
    return 1 << (number - 1).bit_length()
