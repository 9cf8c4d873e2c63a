"""Every kernel compiled for an H100 without one: it compiles, and keeps what it works on in registers."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.skips import needs

pytestmark = [needs("triton"), needs("ptxas")]

#: Registers that a thread may take: with four warps, 128 let four programs run on each multiprocessor.
REGISTERS = {"scan": 64, "count": 128, "direct": 128, "relax": 128, "turn": 128, "merge": 64}
#: Of `route`, two programs fit a multiprocessor by what they share: 228 KB there, one of it for each program.
REGISTERS["route"] = 192
SHARED = (228 // 2 - 1) * 1024


def kernels():
    from omnisink.kernels.detection import count, scan
    from omnisink.kernels.direction import direct
    from omnisink.kernels.relaxation import relax
    from omnisink.kernels.rotation import turn
    from omnisink.kernels.routing import route
    from omnisink.kernels.splits import merge

    scanning = {"WORDS": 24, "FEW": 8, "BLOCK": 4096}
    relaxing = {"ALIGNED": True, "HAS_CAP": True, "HAS_LOGITS": True, "TOKENS": 64}
    turning = {"HAS_SLOTS": False, "HAS_FROZEN": True, "HAS_GAMMAS": False, "ALIGNED": True, "ROWS": 16, "WIDTH": 128}
    pointing = {"FREEZE": True, "HAS_SLOTS": False, "ALIGNED": True, "WIDTH": 128, "TILE": 32, "CHUNK": 1024}
    routing = {"ALIGNED": True, "HAS_CAP": False, "HAS_SURROGATE": True, "HAS_THRESHOLDS": True, "HAS_RANGES": True}
    routing |= {"MASK": "", "SINGLE": False, "WIDEN": False, "ROWS": 16, "KEYS": 64, "DEPTH": 128, "WIDTH": 128}
    masked = {**routing, "HAS_CAP": True, "MASK": "bool"}
    wide = {**masked, "KEYS": 32, "DEPTH": 256, "WIDTH": 256}
    return {
        "scan": (scan, scanning, 4),
        "count": (count, {**scanning, "BINS": 1 << 15, "CHUNK": 1024}, 8),
        "count float32": (count, {**scanning, "BINS": 1 << 15, "CHUNK": 1024}, 8),
        "direct": (direct, pointing, 4),
        "relax": (relax, {**relaxing, "KEYS": 64, "DEPTH": 128, "WIDTH": 128}, 4),
        "relax wide": (relax, {**relaxing, "KEYS": 32, "DEPTH": 256, "WIDTH": 256}, 4),
        "turn": (turn, turning, 4),
        "turn wide": (turn, {**turning, "WIDTH": 256}, 4),
        "turn packed": (turn, {**turning, "HAS_SLOTS": True, "HAS_GAMMAS": True, "ROWS": 4}, 4),
        "route": (route, routing, 4),
        "route masked": (route, masked, 4),
        "route narrow": (route, {**masked, "KEYS": 128, "DEPTH": 64, "WIDTH": 64}, 4),
        "route many queries": (route, {**routing, "ROWS": 32}, 4),
        "route wide": (route, wide, 4),
        "route narrow values": (route, {**wide, "MASK": "float", "WIDTH": 128}, 4),
        "route one part": (route, {**routing, "SINGLE": True}, 4),
        "route float32": (route, {**masked, "KEYS": 16}, 4),
        "route wide float32": (route, {**wide, "KEYS": 16}, 8),
        "merge": (merge, {"SPLITS": 256, "CHUNK": 32, "WIDTH": 128}, 4),
    }


#: Arguments that are not 32-bit integers.
TYPES = {
    **dict.fromkeys(("hidden", "value", "output", "query", "key", "logits"), "*bf16"),
    **dict.fromkeys(("magnitude", "direction", "out", "gammas"), "*fp32"),
    **dict.fromkeys(("anchor", "surrogate", "thresholds", "score", "parts", "tops", "totals"), "*fp32"),
    **dict.fromkeys(("starts", "stops"), "*i64"),
    **dict.fromkeys(("sequence", "first", "stop", "sizes", "slots", "stamps", "bins"), "*i32"),
    **dict.fromkeys(("sinks", "frozen", "routed", "mask"), "*i8"),
    **dict.fromkeys(("floor", "ratio", "gamma", "tau", "scale", "cap", "threshold"), "fp32"),
    "numbers": "*i64",
}
#: Integers of which Triton finds out by itself that 16 divides them.
DIVISIBLE = {"width", "depth", "stride_n", "stride_b"}
DIVISIBLE |= {"stride_s", "stride_vs", "stride_os", "stride_oh", "stride_qs", "stride_ks"}
DIVISIBLE |= {"stride_qb", "stride_qh", "stride_ab", "stride_ah", "stride_sb", "stride_sh"}


def resources(name):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, constants, warps = kernels()[name]
    types = {p: t.replace("bf16", "fp32") for p, t in TYPES.items()} if "float32" in name else TYPES
    signature = {p: "constexpr" if p in constants else types.get(p, "i32") for p in kernel.arg_names}
    divisible = {
        (i,): [["tt.divisibility", 16]]
        for i, p in enumerate(kernel.arg_names)
        if (p in DIVISIBLE and not kernel.params[i].do_not_specialize)
        or (signature[p].startswith("*") and not kernel.params[i].do_not_specialize)
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=divisible)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})


@pytest.mark.parametrize(
    "name",
    [
        *("scan", "count", "count float32", "direct", "relax", "relax wide", "turn", "turn wide", "turn packed"),
        *("route", "route masked", "route narrow", "route many queries", "route wide", "route narrow values"),
        *("route one part", "route float32", "route wide float32", "merge"),
    ],
)
def test_a_kernel_compiles_and_spills_nothing(name, tmp_path, monkeypatch):
    import triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiled = resources(name)
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    shown = subprocess.run([tool, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True).stdout
    found = {key: int(number) for key, number in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", shown)}
    print(name, found, compiled.metadata.shared)
    assert found["STACK"] == found["LOCAL"] == 0
    assert found["REG"] <= REGISTERS[name.split()[0]]
    if name == "scan":  # The residual stream is read sixteen bytes at a time.
        assert "ld.global.v4.b32" in compiled.asm["ptx"]
    if name.startswith("route"):  # Keys and values are fetched ahead, sixteen bytes at a time, while others are used.
        assert "cp.async.cg.shared.global" in compiled.asm["ptx"]
        assert compiled.metadata.shared <= SHARED
        if "float32" not in name:
            assert "wgmma.mma_async" in compiled.asm["ptx"]


def test_nothing_of_it_ran_in_the_interpreter():
    assert os.environ.get("TRITON_INTERPRET") != "1"
    assert importlib.util.find_spec("triton") is not None
