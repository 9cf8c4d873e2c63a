"""A process of a run: `python -m benchmarks.gpu.worker KIND OPTIONS`, which `benchmarks.gpu` starts and listens to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.lines import Case, append, run_cases
from benchmarks.gpu.options import Options

#: The exit status where the device is not there.
NO_DEVICE = 3


def main(kind: str, options: Options) -> None:
    """Do one process's share."""
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(NO_DEVICE)
    torch.set_grad_enabled(False)
    append(options.results, "surroundings", found_here(device))
    healthy = partial(answers, device)
    if kind == "timing":
        from benchmarks.gpu.timing import measure

        measure(options, healthy)
    else:
        lists = (functions, passes, comparing, compiling, families)
        cases = {one.__name__: one for one in lists}[kind]
        run_cases(list(cases(device, options)), options, healthy)


def functions(device: torch.device, options: Options) -> Iterator[Case]:
    """List the checks of single functions."""
    from benchmarks.gpu import check_maths as maths
    from benchmarks.gpu.check_routing import routed

    for check in (maths.sinks, maths.direction, maths.rotation, maths.relaxed, routed):
        for name, dtype in maths.DTYPES.items():
            yield _check(f"maths, {check.__name__}, {name}", lambda c=check, d=dtype: c(device, d))


def passes(device: torch.device, options: Options) -> Iterator[Case]:
    """List the checks of whole passes."""
    from benchmarks.gpu import check_passes as whole

    for check in (whole.as_on_the_cpu, whole.captured, whole.alone, whole.nothing_done, whole.in_a_static_cache):
        yield _check(check.__name__.replace("_", " "), lambda c=check: c(device))


def comparing(device: torch.device, options: Options) -> Iterator[Case]:
    """List the comparisons of families with the CPU, in a process of their own that waits for no other check."""
    from benchmarks.gpu import check_passes as whole

    for name in whole.OTHERS:
        yield _check(f"as on the cpu, {name}", lambda n=name: whole.family_as_on_the_cpu(device, n))


def compiling(device: torch.device, options: Options) -> Iterator[Case]:
    """List the checks that wait for the compiler."""
    from benchmarks.gpu import check_passes as whole

    yield _check("compiled, reduce-overhead", lambda: whole.compiled(device, "reduce-overhead"))
    yield _check("flex attention", lambda: whole.flex(device))
    if not options.quick:
        yield _check("compiled, default", lambda: whole.compiled(device, "default"))


def families(device: torch.device, options: Options) -> Iterator[Case]:
    """List this process's share of the support table."""
    from omnisink import OutRo
    from omnisink.verification.families import FAMILIES
    from omnisink.verification.verify import verify

    method = OutRo(gamma=0.5)

    def run(name: str) -> dict[str, Any]:
        result = verify(FAMILIES[name], method, device)
        said = result.outcome if result.as_expected else f"{result.outcome}, expected {result.expectation}"
        status = {"absent": "skipped"}.get(result.outcome, "passed")
        # More than was promised, with another release of transformers, is not a failure.
        if not (result.as_expected or (result.outcome, result.expectation) == ("supported", "partial")):
            status = "failed"
        detail = "; ".join([said, *result.problems, *([", ".join(result.backends)] if result.backends else [])])
        if result.outcome == "absent":
            detail = result.refusal
        return {"status": status, "detail": detail, "data": {"family": result.to_dict()}}

    first, step = options.share
    for name in list(FAMILIES)[first::step]:
        yield Case("families", name, lambda n=name: run(n))


def _check(name: str, check: Callable[[], str]) -> Case:
    return Case("checks", name, lambda: {"detail": check()})


def found_here(device: torch.device) -> dict[str, Any]:
    """Return what a run depends on."""
    from benchmarks.history import surroundings

    return {**surroundings(), "device": device.type, "python": sys.version.split()[0]}


def answers(device: torch.device) -> bool:
    """Whether the device still computes; after an illegal access it never does again in the same process."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize()
        return int(torch.ones(3, device=device).sum()) == 3
    except RuntimeError:
        return False


if __name__ == "__main__":
    main(sys.argv[1], Options.from_json(sys.argv[2]))
