"""Run a model's later layers again and again on one prompt, without running what comes before them each time.

A change at layer l leaves the towers and the layers before l as they were. A tape keeps what those returned in one run
and returns it in the next ones, in place of their ``forward``, so that hooks on them see what they always see. Nothing
is taken on trust: a call is answered from the tape only if it is given, to the bit, what it was given then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import nn

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.replay.calls import Call, stand_in_front
from omnisink.decoder.replay.tape import Tape


@contextmanager
def replay(anatomy: Anatomy) -> Iterator[Tape]:
    """Record the first run of a model and let later runs start at a layer.

    >>> with replay(read_anatomy(model)) as tape:
    ...     plain = model(**inputs, use_cache=False)
    ...     with tape.from_layer(12), method(model):
    ...         changed = model(**inputs, use_cache=False)

    The tape holds a copy of the residual stream (B, S, d) at every layer, of the arguments of the text model, of what
    the towers received and returned, and of keys and values that layers share. Copies are constants: no gradient flows
    back through what is replayed. What a method would do to the heads of a layer that is not run, it does not do.

    Parameters
    ----------
    anatomy : Anatomy
        The model's decoder. The model is run eagerly; passes that go on with a filled cache are neither recorded nor
        replayed.

    Yields
    ------
    Tape
        Empty until the model has run once. When the block ends, however it ends, the model is as it was.
    """
    with _in_front(anatomy, Tape(anatomy)) as tape:
        yield tape


@contextmanager
def share(anatomy: Anatomy) -> Iterator[None]:
    """Let the runs of a block on one prompt share what comes before the first change in them.

    >>> with share(read_anatomy(model)):
    ...     plain = model.generate(**inputs)
    ...     with OutRo(gamma=0.3)(model):
    ...         turned = model.generate(**inputs)     # begins at the first layer with a sink

    The first run is recorded, up to the layer where a method does something (`Method.can_skip_layer`). In later ones
    towers and layers are answered as long as they are given, to the bit, what they were given then, and no method has
    anything to do there; from then on everything is run. So each gives what it would give alone, to the bit. One more
    prompt is simply run.

    Parameters
    ----------
    anatomy : Anatomy
        The model's decoder. The model is run eagerly.
    """
    with _in_front(anatomy, Tape(anatomy, shares=True)):
        yield


@contextmanager
def _in_front(anatomy: Anatomy, tape: Tape) -> Iterator[Tape]:
    with ExitStack() as stack:
        stack.callback(tape.end)
        for module, answer in _answers(anatomy, tape):
            stack.callback(stand_in_front(module, answer))
        yield tape


def _answers(anatomy: Anatomy, tape: Tape) -> Iterator[tuple[nn.Module, Callable[[Call], Any]]]:
    """Yield every module to stand in front of, with what answers its calls; an owner of layers comes after them."""
    first = anatomy.layers[0]
    owners = [module for module in anatomy.model.modules() if module is not first and first in module.modules()]
    beside = {child for owner in owners for child in owner.children()} - {*owners, *anatomy.layers}
    for tower in (tower for module in beside for tower in _towers(module)):
        yield tower, partial(tape.run_tower, tower)
    for index, layer in enumerate(anatomy.layers):
        yield layer, partial(tape.run_layer, index)
    yield anatomy.text_model, tape.run_text_model
    for owner in filter(_runs, owners):
        yield owner, tape.run_pass


def _runs(module: nn.Module) -> bool:
    """Whether the module can be called, or merely holds others."""
    return type(module).forward is not nn.Module.forward


def _towers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost modules that can be called and are worth keeping the output of."""
    if not _runs(module):
        for child in module.children():
            yield from _towers(child)
    elif not isinstance(module, nn.Embedding) and any(True for _ in module.parameters()):
        yield module
