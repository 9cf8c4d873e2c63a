"""A key/value cache that keeps the first tokens and the last ones, and frees the memory of those between them.

Positions inside such a cache are counted as transformers counts them, over all tokens that ever entered it: masks and
position ids need no change. Under padding on the left every sequence has first tokens of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from omnisink.decoder.anatomy import Anatomy
from omnisink.errors import OmnisinkError

#: Turns keys (B, K, n, D) by a number of positions, an int or one for each sequence, (B,).
Turn = Callable[[Tensor, Tensor | int], Tensor]


class StreamingLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """The keys and values of one layer, without those between the first tokens and the last.

    A pass that adds n tokens keeps the first `n_sink` real tokens of each sequence, the last ``max(window, n)``, and
    nothing else; the pass attends to these. The first pass attends to all it adds.

    Parameters
    ----------
    n_sink, window : int
        How many first tokens are kept, and how many last ones, the new ones included.
    turn : callable, optional
        Turns the first keys to the positions that they have in the cache; see `Turn`. None keeps positions.

    Attributes
    ----------
    seen : int
        Tokens that ever entered, padding included.
    padding : Tensor or None
        (B,) int64, how many of the kept columns are padding, on the left; None where there is none.
    dropped : int or Tensor
        How many real tokens of every sequence, or of each, (B,), were dropped.
    """

    is_croppable = False
    keys: Any  # Tensors, once there is something to hold.
    values: Any

    def __init__(self, n_sink: int, window: int, turn: Turn | None = None) -> None:
        super().__init__()
        self.n_sink, self.window, self.turn = n_sink, window, turn
        self._forget()

    def _forget(self) -> None:
        self.seen = 0
        self.padding: Tensor | None = None
        self.dropped: int | Tensor = 0

    @classmethod
    def holding(cls, layer: DynamicLayer, n_sink: int, window: int, padding: Tensor | None, turn: Turn | None) -> Any:
        """Take over what a layer holds after a prefill, whose first `padding` (B,) columns are padding."""
        made = cls(n_sink, window, turn)
        if layer.is_initialized and layer.keys is not None and layer.values is not None:
            made.lazy_initialization(layer.keys, layer.values)
            made.seen = layer.get_seq_length()
            made.padding = None if padding is None else padding.to(layer.keys.device)
            made.keys, made.values = layer.keys, layer.values
            made._drop(0)
        return made

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, K, n, D); return those to attend to."""
        super().update(key_states, value_states)
        self.seen += key_states.shape[-2]
        self._drop(key_states.shape[-2])
        return (self.keys if self.turn is None else self._turned(self.turn)), self.values

    def _drop(self, new: int) -> None:
        """Drop what lies between the first tokens and the last, `new` of which have just come."""
        excess = self.keys.shape[-2] - self.n_sink - max(self.window, new)
        if excess <= 0:
            return
        if self.padding is None:
            self.keys, self.values = (
                torch.cat([kept[:, :, : self.n_sink], kept[:, :, self.n_sink + excess :]], dim=2)
                for kept in (self.keys, self.values)
            )
            self.dropped = self.dropped + excess
            return
        place = torch.arange(self.keys.shape[-2] - excess, device=self.keys.device)
        gone = self.padding.clamp(max=excess)[:, None]  # Padding goes before any token does.
        index = place + torch.where(place < self.n_sink, gone, excess)
        self.keys, self.values = (keys_at(kept, index) for kept in (self.keys, self.values))
        self.padding, self.dropped = self.padding - gone[:, 0], self.dropped + (excess - gone[:, 0])

    def _turned(self, turn: Turn) -> Tensor:
        """Return the keys, the first tokens' moved up to the last ones."""
        if isinstance(self.dropped, int) and self.dropped == 0:
            return self.keys
        # Where a sequence has padding left, it has dropped nothing, and its keys are turned by zero positions.
        first = turn(self.keys[:, :, : self.n_sink], self.dropped)
        return torch.cat([first, self.keys[:, :, self.n_sink :]], dim=2)

    @property
    def has_gap(self) -> bool:
        """Whether tokens were dropped, so that keys do not follow one another."""
        return bool(self.keys is not None and self.seen > self.keys.shape[-2])

    def get_seq_length(self) -> int:
        """Return how many tokens ever entered."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys the next pass attends to, and where the last of them start."""
        held = 0 if self.keys is None else self.keys.shape[-2]
        length = min(held + query_length, self.n_sink + max(self.window, query_length))
        return length, self.seen + query_length - length

    def get_max_length(self) -> int:
        """Return how many keys stay between passes."""
        return self.n_sink + self.window

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._forget()

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse to go back: what was dropped cannot be had again."""
        if tokens_to_remove != 0:
            raise OmnisinkError(
                "a cache that has dropped tokens cannot be cropped: keep all tokens (evict=False), or start anew"
            )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the sequences."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some sequences."""
        if self.keys is not None:
            super().batch_select_indices(indices.to(self.keys.device))
            self._follow(lambda kept: kept[indices.to(kept.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every sequence."""
        super().batch_repeat_interleave(repeats)
        self._follow(lambda kept: kept.repeat_interleave(repeats, dim=0))

    def _follow(self, change: Callable[[Tensor], Tensor]) -> None:
        self.padding = None if self.padding is None else change(self.padding)
        self.dropped = change(self.dropped) if isinstance(self.dropped, Tensor) else self.dropped


class StreamingCache(DynamicCache):  # type: ignore[misc]
    """A cache for `past_key_values` whose full-attention layers are `StreamingLayer`; others are as the model asks.

    Parameters
    ----------
    config : PreTrainedConfig
        The model's.
    n_sink, window : int
        See `StreamingLayer`. Positions are kept; prompts that are padded need ``StreamingLLM(evict=True)``.
    """

    layers: Any

    def __init__(self, config: Any, n_sink: int = 4, window: int = 512) -> None:
        super().__init__(config=config)
        made = self.layers
        self.layers = [StreamingLayer(n_sink, window) if type(one) is DynamicLayer else one for one in made]


def full_attention_layers(anatomy: Anatomy) -> dict[int, int]:
    """Return the layers that attend to all of a prompt, and where a cache holds their keys."""
    made = DynamicCache(config=anatomy.text_model.config).layers
    places = {layer: _place(anatomy, layer) for layer in anatomy.attention}
    sliding = {i for i, layer in enumerate(made) if getattr(layer, "is_sliding", False)}
    return {i: place for i, place in places.items() if anatomy.attention[i].window is None and place not in sliding}


def _place(anatomy: Anatomy, layer: int) -> int:
    return int(getattr(anatomy.attention[layer].module, "layer_idx", layer))


def stream_layers(
    cache: Any,
    anatomy: Anatomy,
    turns: Mapping[int, Turn | None],
    n_sink: int,
    window: int,
    padding: Tensor | None = None,
) -> None:
    """Make layers of a dynamic cache, after a prefill, drop what lies between their first tokens and the last.

    Parameters
    ----------
    cache : Cache
        After a prefill.
    anatomy : Anatomy
        The model's decoder.
    turns : mapping of int to callable
        What turns the first keys of a layer; see `StreamingLayer`. A layer that is missing keeps positions.
    n_sink, window : int
        See `StreamingLayer`.
    padding : Tensor, optional
        (B,) int64, padding on the left of each sequence.

    Raises
    ------
    OmnisinkError
        If the cache is of a kind whose memory cannot be freed.
    """
    held = dict(enumerate(cache.layers)) if isinstance(cache, Cache) else {}
    # Layers that read the keys of another have none of their own in the cache.
    growing = {i: one for i, one in held.items() if isinstance(one, CacheLayerMixin) and not one.is_sliding}
    places = {layer: place for layer, place in full_attention_layers(anatomy).items() if place in growing}
    known = all(type(growing[place]) in (DynamicLayer, StreamingLayer) for place in places.values())
    # One mask is made for all layers of one size: none with a window may be cached as if it had none.
    mixed = any(_place(anatomy, layer) in growing for layer in anatomy.attention.keys() - places.keys())
    if not places or not known or mixed or getattr(cache, "offloading", False):
        kinds = ", ".join(sorted({type(layer).__name__ for layer in held.values()})) or "no layers"
        raise OmnisinkError(
            f"a {type(cache).__name__} of {kinds} cannot drop tokens: its memory is fixed, kept elsewhere, or shared "
            "with layers that have a window. Use DynamicCache(config=model.config), or keep all tokens (evict=False)"
        )
    for layer, place in places.items():
        cache.layers[place] = StreamingLayer.holding(growing[place], n_sink, window, padding, turns.get(layer))


def keys_at(kept: Tensor, index: Tensor) -> Tensor:
    """Return the keys or values (B, K, n, D) of some columns (B, n) of those (B, K, T, D) that are there."""
    return kept.gather(2, index[:, None, :, None].expand(-1, kept.shape[1], -1, kept.shape[3]))
