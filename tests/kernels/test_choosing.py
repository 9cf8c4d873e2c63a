"""Where kernels do the work: on CUDA devices, also in graphs that torch.compile makes; and what is said elsewhere."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
import torch.utils._triton
from torch._subclasses import FakeTensorMode

from omnisink.maths import choice, kernel_devices
from omnisink.maths.choice import kernels_run_on
from omnisink.maths.prompts import Prompts
from omnisink.maths.rotation import rotate
from omnisink.maths.routing import Visible, routed_decode
from tests.skips import needs


def on(device: str, **options: Any) -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty(4, device=device, **options)


@needs("triton")
def test_kernels_run_on_cuda_tensors_that_need_no_gradient():
    assert kernels_run_on(on("cuda"))
    assert kernels_run_on(on("cuda", dtype=torch.bfloat16), on("cuda", dtype=torch.float16))
    assert not kernels_run_on(on("cuda", dtype=torch.float64))
    assert not kernels_run_on(torch.empty(4))
    wanted = on("cuda", requires_grad=True)
    assert not kernels_run_on(on("cuda"), wanted)
    with torch.no_grad():
        assert kernels_run_on(wanted)


def test_they_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(choice, "_CHOICE", "off")
    assert not kernels_run_on(on("cuda"))


@pytest.mark.parametrize("device", ["xpu", "cuda"])
def test_it_is_said_once_where_an_accelerator_has_none(device, monkeypatch):
    monkeypatch.setattr(choice, "_HAS_TRITON", False)
    monkeypatch.setattr(kernel_devices, "_TOLD", set())
    tensor = on(device)
    with pytest.warns(RuntimeWarning, match=f"runs on {device} by PyTorch's operators"):
        assert not kernels_run_on(tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not kernels_run_on(tensor)


def test_nothing_imports_triton_where_it_is_not_used():
    code = "import sys, omnisink, omnisink.methods.outro, omnisink.maths.packed; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@needs("triton")
def test_torch_compile_traces_the_launches_into_one_graph(monkeypatch):
    """On tensors that only say that they are on a GPU: what would be compiled there, is traced here."""
    monkeypatch.setattr(torch.utils._triton, "has_triton", lambda: True)
    graphs = []

    def backend(module: Any, _: Any) -> Any:
        graphs.append([str(n.target) for n in module.graph.nodes if "triton_kernel" in str(n.target)])
        return module.forward

    def prefill(hidden: Any, query: Any, key: Any, value: Any, output: Any) -> Any:
        prompts = Prompts(len(hidden), hidden.shape[1], None, 4)
        sinks, _ = prompts.find_sinks(1, hidden, min_activation=100.0, median_ratio=1000.0)
        output, _ = prompts.relax(1, sinks, output, query, key, value, most=256)
        direction = prompts.freeze_and_point(sinks, value, output.shape[2])
        return rotate(output, direction, gamma=0.3, tau=0.1, frozen=prompts.frozen), direction

    def step(output: Any, direction: Any) -> Any:
        return rotate(output, direction, gamma=0.3, tau=0.1)

    def routed(query: Any, key: Any, value: Any, anchor: Any, seen: Any) -> Any:
        return routed_decode(query, key, value, anchor, 0.5, seen)

    def on_cuda(*shape: int) -> Any:
        return torch.empty(shape, device="cuda", dtype=torch.bfloat16)

    torch._dynamo.reset()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        shapes = ((2, 16, 64), (2, 4, 16, 64), (2, 2, 16, 64), (2, 2, 16, 64), (2, 16, 4, 64))
        made = [torch.empty(shape, device="cuda", dtype=torch.bfloat16) for shape in shapes]
        output, direction = torch.compile(prefill, backend=backend, fullgraph=True)(*made)
        assert (output.shape, direction.shape) == (made[4].shape, (2, 4, 64))
        torch.compile(step, backend=backend, fullgraph=True)(output[:, :1].clone(), direction)
        routing = (on_cuda(2, 14, 1, 64), on_cuda(2, 2, 900, 64), on_cuda(2, 2, 900, 64), on_cuda(2, 2, 64))
        seen = Visible(torch.zeros(2, dtype=torch.long, device="cuda"), torch.full((2,), 700, device="cuda"))
        found = torch.compile(routed, backend=backend, fullgraph=True)(*routing, seen)
        assert (found.output.shape, found.routed.shape) == ((2, 14, 1, 64), (2, 2))
    torch._dynamo.reset()
    assert [len(graph) for graph in graphs] == [5, 1, 2]
