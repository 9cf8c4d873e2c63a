"""Pictures that `generate` encodes before the first pass: the same once more, with other pixels, for a twin.

Newer releases of transformers let `generate` run the vision tower before the prefill, and give the model what comes
out, so that a twin's pixels have to be changed before that. What is made here is kept by thread until the twin asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

from torch import Tensor

from omnisink.decoder.anatomy import Anatomy
from omnisink.decoder.patching import PATCHES, replace_attribute
from omnisink.decoder.replay import share
from omnisink.decoder.twins import find_head

#: What a prefill is given in place of pixels.
ENCODED = "mm_encoder_outputs"
#: The functions of `generate` that make it, and that repeat it for beams.
_MAKE, _REPEAT = "_maybe_prepare_encoder_kwargs_for_generation", "_expand_inputs_for_generation"
#: By the id of a generating module, what is encoded for twins of it.
_WATCHED: dict[int, EncodedMedia] = {}


class EncodedMedia:
    """What the twin of one model sees in place of encoded pixels.

    Parameters
    ----------
    anatomy : Anatomy
        The decoder of the generating module.
    change : callable
        From inputs by name to those of them that differ for the twin, such as pixels with noise.
    """

    def __init__(self, anatomy: Anatomy, change: Callable[[Mapping[str, Any]], Mapping[str, Tensor]]) -> None:
        self._anatomy, self._model, self._change = anatomy, find_head(anatomy), change
        self._kept: dict[int, Any] = {}

    def watch(self) -> Callable[[], None]:
        """Begin, and return what ends it. Where `generate` encodes nothing, as in older versions, nothing happens."""
        stops: list[Callable[[], None]] = []
        for name in (_MAKE, _REPEAT):
            owner = next((one for one in type(self._model).__mro__ if name in vars(one)), None)
            if owner is not None:
                stops.append(PATCHES.acquire((owner, name), partial(_stand_beside, owner, name)))
        _WATCHED[id(self._model)] = self

        def stop() -> None:
            del _WATCHED[id(self._model)]
            for one in stops:
                one()

        return stop

    def of_this_thread(self) -> Any:
        """Return what was encoded for the twin's prefill; None where nothing was."""
        return self._kept.get(threading.get_ident())

    def make(self, original: Callable[..., Any], given: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        """Encode, and encode once more what differs."""
        changed = self._change(inputs)
        # Both write into the inputs that they are given, and take the pixels out of them.
        again = {**inputs, **changed}
        thread = threading.get_ident()
        self._kept.pop(thread, None)
        with share(self._anatomy, 0):  # Where pictures have noise, the sound is encoded once.
            made = original(given, inputs, *rest, **named)
            if changed and made.get(ENCODED):
                again.pop(ENCODED, None)
                self._kept[thread] = original(given, again, *rest, **named)[ENCODED]
        return made

    def repeat(self, original: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Repeat what was encoded for beams and for several answers, the twin's as well."""
        thread = threading.get_ident()
        if (kept := self._kept.get(thread)) is not None:
            self._kept[thread] = original(*args, **{**named, ENCODED: kept})[1][ENCODED]
        return original(*args, **named)


def _stand_beside(owner: type, name: str) -> Callable[[], None]:
    original = vars(owner)[name]

    @wraps(original)
    def standing(module: Any, *args: Any, **named: Any) -> Any:
        watched = _WATCHED.get(id(module))
        if watched is None:
            return original(module, *args, **named)
        act = watched.make if name == _MAKE else watched.repeat
        return act(partial(original, module), *args, **named)

    return replace_attribute(owner, name, standing)
