"""What a compiled kernel is kept under, against Triton's own specialization of the same arguments; and prefills."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
import torch

from tests.skips import needs

pytestmark = needs("triton")

#: Integers of every kind: one, divisible by sixteen or not, and more than 32 bits hold.
WHOLE = (0, 1, 2, 15, 16, 48, (1 << 31) - 1, 1 << 31, (1 << 31) + 16)


def addressed(dtype, offset):
    """Return a tensor at an address of which the remainder by sixteen is `offset`."""
    room = torch.zeros(64, dtype=torch.uint8)
    start = (-room.data_ptr()) % 16 + offset
    return room[start : start + 16].view(dtype)


def kernels():
    from omnisink.kernels.detection import count, scan
    from omnisink.kernels.direction import direct
    from omnisink.kernels.relaxation import relax
    from omnisink.kernels.rotation import turn
    from omnisink.kernels.routing import route
    from omnisink.kernels.splits import merge

    return {
        "scan": scan, "count": count, "direct": direct, "relax": relax, "turn": turn, "route": route, "merge": merge
    }  # fmt: skip


#: How many of a kernel's first parameters are tensors, and which of the others are floats.
TENSORS = {"scan": 4, "count": 9, "direct": 7, "relax": 11, "turn": 5, "route": 15, "merge": 5}
FLOATS = {"floor", "ratio", "scale", "cap", "gamma", "tau", "threshold"}


def tritons_own(kernel):
    """Return what gives Triton's specialization of a kernel's arguments, for an H100."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    backend = make_backend(GPUTarget("cuda", 90, 32))
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    return lambda args, constants: str(bind(*args, **constants)[1])


def variants(kernel, name, draw):
    """Yield arguments: one of them changed at a time, pairs of large numbers, and draws of everything at random."""
    runtime = [p.name for p in kernel.params if not p.is_constexpr]
    tensors, rest = runtime[: TENSORS[name]], runtime[TENSORS[name] :]
    dtypes = (torch.float32, torch.bfloat16, torch.int32)
    plain = [addressed(torch.float32, 0) for _ in tensors] + [0.5 if n in FLOATS else 48 for n in rest]
    yield plain
    for i, parameter in enumerate(runtime):
        if i < len(tensors):
            others = [addressed(d, o) for d, o in itertools.product(dtypes, (0, 4, 8))]
        else:
            others = [0.0, 1.0, 2.5] if parameter in FLOATS else WHOLE
        for other in others:
            yield [*plain[:i], other, *plain[i + 1 :]]
    whole = [i for i, n in enumerate(runtime) if i >= len(tensors) and n not in FLOATS]
    for i, j in itertools.pairwise(whole):
        for one, two in ((1 << 31, 3), (3, 1 << 31), (1 << 31, 1 << 31)):
            yield [one if k == i else two if k == j else value for k, value in enumerate(plain)]
    for _ in range(300):
        yield [
            addressed(dtypes[draw(3)], 4 * draw(4))
            if i < len(tensors)
            else draw(7) / 2
            if n in FLOATS
            else WHOLE[draw(len(WHOLE))]
            for i, n in enumerate(runtime)
        ]


@pytest.mark.parametrize("name", list(TENSORS))
def test_what_a_kernel_is_kept_under_tells_apart_what_triton_does_and_no_more(name):
    from omnisink.kernels.launch import _Kernel

    kernel = kernels()[name]
    generator = torch.Generator().manual_seed(0)
    specialize = tritons_own(kernel)
    constants = {p.name: 16 for p in kernel.params if p.is_constexpr}
    found, other_way = defaultdict(set), defaultdict(set)
    for args in variants(kernel, name, lambda n: int(torch.randint(n, (), generator=generator))):
        known = _Kernel(kernel, args)
        assert known.tensors == TENSORS[name]
        key = known.key(0, 4, constants, tuple(args), [arg.data_ptr() for arg in args[: known.tensors]])
        own = specialize(args, constants)
        found[key].add(own)
        other_way[own].add(key)
    assert len(found) > 50
    assert {len(owns) for owns in found.values()} == {1}, (
        "one compiled kernel would be used for arguments of two kinds"
    )
    assert {len(keys) for keys in other_way.values()} == {1}, "a kernel would be compiled again for the same arguments"


def test_constants_warps_and_device_are_told_apart():
    from omnisink.kernels.launch import _Kernel

    kernel = kernels()["scan"]
    args = (*(addressed(torch.float32, 0) for _ in range(4)), 1, 2, 3, 4, 0.5, 6, 7)
    known = _Kernel(kernel, args)
    where = [arg.data_ptr() for arg in args[:4]]
    given = [(0, 4, {"WORDS": 24}), (1, 4, {"WORDS": 24}), (0, 8, {"WORDS": 24}), (0, 4, {"WORDS": 32})]
    assert len({known.key(*one, args, where) for one in given}) == 4
