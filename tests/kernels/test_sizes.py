"""Sizes of programs and blocks."""

from __future__ import annotations

from omnisink.kernels.sizes import pieces, power_of_two


def test_pieces_cover_the_whole():
    assert [pieces(n, 4) for n in (0, 1, 4, 5, 8, 9)] == [0, 1, 1, 2, 2, 3]


def test_the_power_of_two_is_the_smallest_that_is_enough():
    assert [power_of_two(n) for n in (1, 2, 3, 64, 65, 4095, 4096, 4097)] == [1, 2, 4, 64, 128, 4096, 4096, 8192]
