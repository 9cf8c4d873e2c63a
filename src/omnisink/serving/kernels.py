"""The method's operators on CPUs, compiled by Numba, which vLLM brings along.

A decoding step has so few numbers that calling PyTorch two dozen times a layer takes longer than computing them. Each
function here does the work of one in `omnisink.maths` in one call, and is tested against it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

#: Sums may be taken in any order, as PyTorch's are; nothing else is relaxed.
_SUMS = {"reassoc", "contract"}
_TINY = np.float32(np.finfo(np.float32).tiny)
_compiled: Any = njit(["boolean(f4[:,::1], f4, f4, b1[::1])"])
_compiled_sums: Any = njit(["void(f4[:,:,:], b1[::1], f4[:,::1])"], fastmath=_SUMS)
_compiled_turn: Any = njit(["void(f4[:,:,::1], i8[::1], f4[:,:,::1], f4[::1], f4)"], fastmath=_SUMS)


@_compiled
def find_sinks_kernel(hidden, min_activation, median_ratio, sinks):  # type: ignore[no-untyped-def]
    """Mark the tokens of one prompt that are sinks, as `omnisink.maths.sinks.massive_activation_sinks` does.

    Parameters
    ----------
    hidden : ndarray of float32
        Residual stream of the prompt, (S, d).
    min_activation, median_ratio : float32
        Thresholds.
    sinks : ndarray of bool
        (S,), which is written.

    Returns
    -------
    bool
        Whether there is one.
    """
    length, width = hidden.shape
    magnitude = np.zeros(length, np.float32)
    candidates = 0
    for t in range(length):
        large = np.int32(0)  # Counting is done for many channels at once; few tokens need their maximum.
        for i in range(width):
            large += np.int32(abs(hidden[t, i]) >= min_activation)
        sinks[t] = large > 0
        if large > 0:
            candidates += 1
            for i in range(width):
                magnitude[t] = max(magnitude[t], abs(hidden[t, i]))
    if candidates == 0:
        return False
    # The rule is monotone: it holds for the largest candidates, up to some place, which is found by bisection.
    levels = np.sort(magnitude[sinks])[::-1]
    needed = (length * width + 1) // 2
    passing, failing = 0, candidates
    while passing < failing:
        probe = (passing + failing) // 2
        level = levels[probe]
        below = 0
        for t in range(length):
            in_row = np.int32(0)
            for i in range(width):
                in_row += np.int32(abs(hidden[t, i]) * median_ratio <= level)
            below += int(in_row)
        if below >= needed:
            passing = probe + 1
        else:
            failing = probe
    for t in range(length):
        sinks[t] = passing > 0 and sinks[t] and magnitude[t] >= levels[max(passing - 1, 0)]
    return passing > 0


@_compiled_sums
def point_to_sinks(value, sinks, direction):  # type: ignore[no-untyped-def]
    """Write the unit vector of the mean sink value, as `omnisink.maths.rotation.sink_direction` does.

    Parameters
    ----------
    value : ndarray of float32
        Values of the prompt, (S, K, D).
    sinks : ndarray of bool
        (S,).
    direction : ndarray of float32
        (K, D), which is written: zero where there is no sink, or the mean is zero.
    """
    length, heads, depth = value.shape
    direction[:] = 0
    count = 0
    for t in range(length):
        if sinks[t]:
            count += 1
            for k in range(heads):
                for i in range(depth):
                    direction[k, i] += value[t, k, i]
    for k in range(heads):
        square = np.float32(0)
        for i in range(depth):
            direction[k, i] /= np.float32(max(count, 1))
            square += direction[k, i] * direction[k, i]
        size = max(np.sqrt(square), _TINY)
        for i in range(depth):
            direction[k, i] /= size


@_compiled_turn
def rotate(output, slots, directions, gammas, tau):  # type: ignore[no-untyped-def]
    """Rotate head outputs in place, each token toward its sequence's sink, as `omnisink.maths.rotation.rotate` does.

    Parameters
    ----------
    output : ndarray of float32
        Head outputs, (tokens, H, D).
    slots : ndarray of int64
        (tokens,), to which sequence each belongs.
    directions : ndarray of float32
        (slots, K, D), unit vectors; a zero vector leaves its heads as they are.
    gammas : ndarray of float32
        (slots,), strengths.
    tau : float32
        Temperature of the gate.
    """
    tokens, heads, depth = output.shape
    groups = heads // directions.shape[1]
    one, two = np.float32(1), np.float32(2)
    for t in range(tokens):
        gamma = gammas[slots[t]]
        if gamma == 0:
            continue
        for h in range(heads):
            o, u = output[t, h], directions[slots[t], h // groups]
            projection = square = np.float32(0)
            for i in range(depth):
                projection += o[i] * u[i]
                square += o[i] * o[i]
            if projection <= 0:
                continue  # The gate is shut.
            length = np.sqrt(square)
            cosine = projection / max(length, _TINY)
            gate = np.float32(np.tanh(cosine / tau)) * gamma
            along = gate * projection
            if gamma > 0:
                rescale = one / np.sqrt(one + cosine * cosine * gate * (gate + two))
            else:
                # Turning away shortens the output, and the closed form cancels: measure the new length.
                square = np.float32(0)
                for i in range(depth):
                    moved = o[i] + along * u[i]
                    square += moved * moved
                if square == 0:
                    continue
                rescale = length / np.sqrt(square)
            for i in range(depth):
                o[i] = (o[i] + along * u[i]) * rescale
