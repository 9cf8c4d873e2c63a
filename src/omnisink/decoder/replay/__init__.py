"""Run a model's later layers again and again on one prompt, without running what comes before them each time.

A change at layer l leaves the towers and the layers before l as they were. A tape keeps what those returned in one run
and returns it in the next ones, in place of their ``forward``, so that hooks on them see what they always see. Nothing
is taken on trust: a call is answered from the tape only if it is given, to the bit, what it was given then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

from torch import nn

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.replay.calls import Call, stand_in_front
from omnisink.decoder.replay.sharing import Sharing
from omnisink.decoder.replay.tape import Tape

#: By the id of a text model, what its runs share now.
_SHARING: dict[int, Sharing] = {}

Kind = TypeVar("Kind", Tape, Sharing)


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
        try:
            yield tape
        finally:
            tape.end()


@contextmanager
def share(anatomy: Anatomy, layers: int | None = None) -> Iterator[Sharing]:
    """Let the runs of a block on one prompt share what comes before the first change in them.

    >>> with share(read_anatomy(model)):
    ...     plain = model.generate(**inputs)
    ...     with OutRo(gamma=0.3)(model):
    ...         turned = model.generate(**inputs)     # begins at the first layer with a sink

    Towers and layers are recorded by the first run that comes to them. Later ones get the answers as long as they ask,
    to the bit, the same, and no method has anything to do there (`Method.can_skip_layer`); from then on all is run. So
    each run gives what it would give by itself, to the bit. One more prompt is simply run.

    Parameters
    ----------
    anatomy : Anatomy
        The model's decoder. The model is run eagerly.
    layers : int, optional
        Number of layers, from the first, that are shared; None is all, 0 the towers only.

    Yields
    ------
    Sharing
        What is shared. Inside another such block it is that of the other, and `layers` is not looked at.
    """
    key = id(anatomy.text_model)
    if key in _SHARING:
        yield _SHARING[key]
        return
    with _in_front(anatomy, _SHARING.setdefault(key, Sharing(anatomy, layers))) as sharing:
        try:
            yield sharing
        finally:
            del _SHARING[key]


@contextmanager
def _in_front(anatomy: Anatomy, tape: Kind) -> Iterator[Kind]:
    with ExitStack() as stack:
        for module, answer in _answers(anatomy, tape):
            stack.callback(stand_in_front(module, answer))
        yield tape


def _answers(anatomy: Anatomy, tape: Tape | Sharing) -> Iterator[tuple[nn.Module, Callable[[Call], Any]]]:
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
