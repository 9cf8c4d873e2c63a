"""The direct launch, with a compiled kernel that only notes what it is called with: no GPU is asked for."""

from __future__ import annotations

import warnings
import weakref
from types import SimpleNamespace

import pytest
import torch

from tests.skips import needs

pytestmark = needs("triton")


class OnDevice(torch.Tensor):
    """A tensor of the CPU that says it is on the first accelerator, at an address of our choice."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    address = 4096

    def get_device(self):
        return 0

    def data_ptr(self):
        return self.address


def on_device(*shape, dtype=torch.float32, address=4096):
    tensor = torch.zeros(shape, dtype=dtype).as_subclass(OnDevice)
    tensor.address = address
    return tensor


@pytest.fixture
def calls(monkeypatch):
    """Direct calls, and those that went through Triton's own launcher, in the order they were made."""
    from triton.runtime.jit import JITFunction

    from omnisink.kernels import launch as launching

    made = []

    class Made(SimpleNamespace):
        pass  # To which weak references can be made.

    def own_launcher(kernel, grid):
        def compile_and_run(*args, **constants):
            made.append(("own", grid, [a for a in args if isinstance(a, torch.Tensor)], constants))
            return Made(
                run=lambda *given: made.append(("direct", given)), function="function", packed_metadata="metadata"
            )

        return compile_and_run

    monkeypatch.setattr(JITFunction, "__getitem__", own_launcher)
    monkeypatch.setattr(launching, "current_device", lambda: 0)
    monkeypatch.setattr(launching, "address_of", lambda tensor: tensor.data_ptr())
    monkeypatch.setattr(launching, "_KERNELS", {})
    monkeypatch.setattr(launching, "_SAID", [])
    monkeypatch.setattr(launching, "driver", SimpleNamespace(active=SimpleNamespace(get_current_stream=lambda i: 7)))
    return made


def turn(output, direction, **options):
    from omnisink.kernels.rotation import rotate_in_place

    rotate_in_place(output, direction, gamma=3.0, tau=0.1, **options)


def kinds(calls):
    return [call[0] for call in calls]


def test_the_second_launch_calls_the_compiled_kernel_with_addresses(calls):
    output, direction = on_device(1, 1, 4, 16, address=64), on_device(1, 2, 16, address=128)
    turn(output, direction)
    turn(output, direction)
    assert kinds(calls) == ["own", "direct"]
    grid, rest = calls[1][1][:3], calls[1][1][3:]
    assert grid == (1, 1, 1)
    assert rest[:6] == (7, "function", "metadata", None, None, None)
    assert rest[6:] == (
        64, 128, 128, 128, 128, 3.0, 0.1, 4, 4, 2, 1, 64, 64, 16, 16, 32, False, False, False, True, 4, 16,
    )  # fmt: skip


def test_it_is_compiled_again_for_what_triton_compiles_for_and_for_nothing_else(calls):
    direction = on_device(1, 2, 16)
    turn(on_device(1, 1, 4, 16), direction)
    for same in (on_device(1, 3, 4, 16), on_device(1, 9, 4, 16), on_device(1, 1, 4, 16, address=8192)):
        turn(same, direction)
    assert kinds(calls) == ["own", "direct", "direct", "direct"]
    others = [
        (on_device(1, 1, 4, 16, dtype=torch.bfloat16), direction),
        (on_device(1, 1, 4, 16, address=4100), direction),
        (on_device(1, 1, 4, 16), on_device(1, 2, 16, address=4104)),
        (on_device(1, 1, 4, 24), on_device(1, 2, 24)),
        (on_device(1, 1, 4, 16), on_device(1, 4, 16)),
    ]
    for number, pair in enumerate(others):
        calls.clear()
        turn(*pair)
        turn(*pair)
        assert kinds(calls) == ["own", "direct"], number


def test_bool_tensors_are_handed_to_triton_as_int8(calls):
    frozen = on_device(1, 2, dtype=torch.bool)
    turn(on_device(1, 2, 4, 16), on_device(1, 2, 16), frozen=frozen)
    assert [t.dtype for t in calls[0][2]] == [torch.float32] * 2 + [torch.int8] + [torch.float32] * 2


def failing(error):
    """Return what fails as a compiled kernel does that takes other arguments."""

    def run(*given):
        raise error

    return run


@pytest.mark.parametrize(
    "error", [TypeError("takes 3 arguments"), AttributeError("no launch"), SystemError("bad call")]
)
@pytest.mark.parametrize("is_prepared", [False, True])
def test_where_the_direct_call_fails_tritons_own_launcher_stays_and_it_is_said_once(error, is_prepared, calls):
    from omnisink.kernels import launch as launching
    from omnisink.kernels import rotation

    output, direction = on_device(1, 1, 4, 16), on_device(1, 2, 16)
    prepared = rotation.prepare_rotation(output, direction, gamma=3.0, tau=0.1)
    prepared(output)
    prepared(output)
    assert kinds(calls) == ["own", "direct"]
    (known,) = launching._KERNELS.values()
    (key,) = known.compiled
    known.compiled[key] = known.compiled[key]._replace(run=failing(error))
    prepared._compiled = prepared._compiled._replace(run=failing(error))
    calls.clear()
    first, second = (prepared, lambda given: turn(given, direction))[:: 1 if is_prepared else -1]
    with pytest.warns(RuntimeWarning, match=f"own launcher.* Triton [0-9.]+ .{type(error).__name__}: "):
        first(output)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for launch in (first, second, first, second):
            launch(output)
    assert kinds(calls) == ["own"] * 5  # Each of them once.
    assert not known.compiled


@pytest.mark.parametrize("is_prepared", [False, True])
@pytest.mark.filterwarnings("error")
def test_where_the_device_fails_that_is_raised_and_nothing_else_is_said(is_prepared, calls, monkeypatch):
    from triton.runtime.jit import JITFunction

    from omnisink.kernels import launch as launching
    from omnisink.kernels import rotation

    output, direction = on_device(1, 1, 4, 16), on_device(1, 2, 16)
    prepared = rotation.prepare_rotation(output, direction, gamma=3.0, tau=0.1)
    prepared(output)
    prepared(output)
    broken = failing(RuntimeError("an illegal memory access was encountered"))
    (known,) = launching._KERNELS.values()
    (key,) = known.compiled
    known.compiled[key] = known.compiled[key]._replace(run=broken)
    prepared._compiled = prepared._compiled._replace(run=broken)
    monkeypatch.setattr(JITFunction, "__getitem__", lambda kernel, grid: lambda *args, **constants: broken())
    with pytest.raises(RuntimeError, match="illegal memory access"):
        prepared(output) if is_prepared else turn(output, direction)


def test_a_compiled_kernel_without_what_a_direct_call_needs_is_left_to_triton(calls, monkeypatch):
    from triton.runtime.jit import JITFunction

    own = JITFunction.__getitem__

    def later(kernel, grid):  # As what Triton compiles in the background is, until it is asked for.
        return lambda *args, **constants: (own(kernel, grid)(*args, **constants), SimpleNamespace(result=None))[1]

    monkeypatch.setattr(JITFunction, "__getitem__", later)
    output, direction = on_device(1, 1, 4, 16), on_device(1, 2, 16)
    with pytest.warns(RuntimeWarning, match="AttributeError"):
        turn(output, direction)
    turn(output, direction)
    assert kinds(calls) == ["own"] * 2


def test_a_compiled_kernel_is_held_for_as_long_as_it_may_be_called(calls, monkeypatch):
    """Triton 3.8 unloads the function from the device when its own object is gone."""
    from triton.runtime.jit import JITFunction

    from omnisink.kernels import launch as launching

    own, alive = JITFunction.__getitem__, []

    def watched(kernel, grid):
        def run(*args, **constants):
            made = own(kernel, grid)(*args, **constants)
            alive.append(weakref.ref(made))
            return made

        return run

    monkeypatch.setattr(JITFunction, "__getitem__", watched)
    turn(on_device(1, 1, 4, 16), on_device(1, 2, 16))
    (known,) = launching._KERNELS.values()
    assert alive[0]() is not None
    known.compiled.clear()
    assert alive[0]() is None


def test_a_prepared_launch_passes_the_new_address_alone(calls):
    from omnisink.kernels import rotation
    from omnisink.kernels.launch import count_launches

    output, direction = on_device(1, 1, 4, 16, address=64), on_device(1, 2, 16, address=128)
    prepared = rotation.prepare_rotation(output, direction, gamma=3.0, tau=0.1)
    for address in (64, 256, 512):
        output = on_device(1, 1, 4, 16, address=address)
        assert prepared.fits(output)
        prepared(output)
    assert kinds(calls) == ["own", "direct", "direct"]
    (_, by_launch), (_, alone) = calls[1:]
    assert by_launch[9] == 256
    assert alone == (*by_launch[:9], 512, *by_launch[10:])
    calls.clear()
    prepared(on_device(1, 1, 4, 16, address=68))  # Sixteen does not divide it: another kernel.
    with count_launches() as launches:
        prepared(output)
    assert launches == {"turn": 1}
    assert kinds(calls) == ["own", "direct"]


@pytest.mark.parametrize(
    "other", [on_device(2, 1, 4, 16), on_device(1, 1, 4, 16, dtype=torch.float16), on_device(1, 1, 16, 4).mT, None]
)
def test_a_prepared_launch_is_for_tensors_laid_out_alike(other, calls):
    from omnisink.kernels import rotation

    prepared = rotation.prepare_rotation(on_device(1, 1, 4, 16), on_device(1, 2, 16), gamma=3.0, tau=0.1)
    assert not prepared.fits(torch.zeros(1, 1, 4, 16) if other is None else other)


def prefill(prompts, hidden, value, output):
    """Run what a detecting layer of a prefill launches, for three layers."""
    for layer in range(3):
        sinks, _ = prompts.find_sinks(layer, hidden, min_activation=100.0, median_ratio=1000.0)
        direction = prompts.freeze_and_point(sinks, value, 4, on_device(1, 4, 16))
        prompts.rotate(output, direction, gamma=0.3, tau=0.1)


@pytest.fixture
def a_prefill(calls, monkeypatch):
    from omnisink.maths import choice
    from omnisink.maths.prompts import Prompts

    monkeypatch.setattr(choice, "_CHOICE", "interpret")
    given = on_device(1, 5, 32), on_device(1, 2, 5, 16), on_device(1, 5, 4, 16)
    return lambda: prefill(Prompts(1, 5, None, 3), *given)


def test_layers_of_a_prefill_are_launched_with_other_addresses_and_numbers_alone(calls, a_prefill, monkeypatch):
    from omnisink.kernels.prepared import PreparedLaunch

    made = []
    monkeypatch.setattr(torch.Tensor, "get_device", lambda tensor: 0)
    own = PreparedLaunch.__init__
    monkeypatch.setattr(PreparedLaunch, "__init__", lambda *a, **k: (made.append(a[1]), own(*a, **k))[1])
    a_prefill()
    assert len(made) == 4  # One for each kernel, whatever the number of layers.
    assert len(calls) == 12
    scans = [call[1] for call in calls[4::4] if call[0] == "direct"]
    (tokens, words), layer = (5, 24), len(scans[0]) - 5
    assert [scan[layer : layer + 2] for scan in scans] == [(words, tokens), (2 * words, 2 * tokens)]
    assert len({scan[:layer] + scan[layer + 2 :] for scan in scans}) == 1


@pytest.mark.parametrize("name", ["launch_enter_hook", "launch_exit_hook"])
def test_who_asks_triton_to_be_called_at_every_launch_is_called(name, calls, monkeypatch):
    from omnisink.kernels import launch as launching

    output, direction = on_device(1, 1, 4, 16), on_device(1, 2, 16)
    turn(output, direction)
    turn(output, direction)
    monkeypatch.setattr(launching._HOOKS, name, lambda metadata: None)
    turn(output, direction)
    assert kinds(calls) == ["own", "direct", "own"]
    monkeypatch.undo()
    assert not launching.is_profiled()


def test_what_32_bits_do_not_hold_is_another_kernel(calls, monkeypatch):
    from omnisink.kernels import rotation
    from omnisink.kernels.prepared import PreparedLaunch

    kernel, grid, fixed, constants = rotation._turning(
        on_device(1, 1, 4, 16), on_device(1, 2, 16), 3.0, 0.1, None, False
    )
    prepared = PreparedLaunch(
        kernel, grid, on_device(1, 1, 4, 16), *[on_device(1, 2, 16)] * 2, *fixed, numbers=1, **constants
    )
    for number in (32, 32, 32, 1 << 31, 32):
        prepared(on_device(1, 1, 4, 16), number)
    assert kinds(calls) == ["own", "direct", "direct", "own", "direct"]


def routed_step(length, **options):
    from omnisink.kernels.routing import routed_decode

    query, anchor = on_device(1, 14, 1, 128), on_device(1, 2, 128)
    cache = on_device(1, 2, length, 128), on_device(1, 2, length, 128)
    return routed_decode(query, *cache, anchor, 0.5, **options)


def test_a_step_over_a_growing_cache_is_two_launches_compiled_once(calls, monkeypatch):
    from omnisink.kernels import routing

    monkeypatch.setattr(torch.Tensor, "get_device", lambda tensor: 0)
    monkeypatch.setattr(routing, "_PREPARED", {})
    for length in (600, 601, 602, 767):
        routed_step(length)
    assert kinds(calls) == ["own", "own"] + ["direct"] * 6
    grids = [call[1][:3] for call in calls[2:]]
    assert grids == [(3, 2, 1), (14, 1, 1)] * 3
    calls.clear()
    for _ in range(3):  # Of the same length, nothing is looked up.
        routed_step(767)
    assert kinds(calls) == ["direct"] * 6
    assert [call[1][:3] for call in calls] == [(3, 2, 1), (14, 1, 1)] * 3
    calls.clear()
    routed_step(9000)  # Another number of parts is no other kernel.
    assert kinds(calls) == ["direct", "direct"]
    routed_step(100)  # Short enough for one part: it needs no second launch.
    assert kinds(calls) == ["direct", "direct", "own"]


def test_what_is_prepared_for_a_growing_cache_is_forgotten_at_last(calls, monkeypatch):
    from omnisink.kernels import routing

    monkeypatch.setattr(torch.Tensor, "get_device", lambda tensor: 0)
    monkeypatch.setattr(routing, "_PREPARED", {})
    monkeypatch.setattr(routing, "_MOST_PREPARED", 8)
    for length in range(300, 330):
        routed_step(length)
    assert len(routing._PREPARED) <= 10
