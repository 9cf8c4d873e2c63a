"""Measure sinks in one forward pass, without attention maps: what they draw, what they are made of, what they give."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from omnisink.decoder.anatomy import as_written, read_anatomy
from omnisink.decoder.context import AttentionCall, Context
from omnisink.decoder.masks import visible_keys
from omnisink.errors import OmnisinkError, shown
from omnisink.maths.decomposition import attend, attention_from, num_visible_queries
from omnisink.maths.geometry import masked_mean, mean_cosine, mean_pairwise_cosine, part_of_output
from omnisink.maths.rotation import sink_value
from omnisink.maths.sink_part import split_columns, split_sink_part
from omnisink.methods.criteria import Criterion, MassiveActivation, describe, resolve_criterion
from omnisink.methods.given import inputs_of, layers_of, model_of, run_of, spans_of
from omnisink.methods.measurements import Recording
from omnisink.methods.measurements_views import ON_SINKS
from omnisink.methods.modality import modality_sets
from omnisink.methods.sink_method import SinkMethod
from omnisink.models.adapters.spans import Span

#: Rows of queries on which the split is checked against attention to the rest alone.
_CHECKED = 64
#: A rest shorter than this many roundings of the whole is none: split errors stay below it, in every family.
_ROUNDINGS = 64


@dataclass(frozen=True)
class Recorder(SinkMethod):
    """Measure every layer of a prefill and change nothing.

    Nothing of size S x S is kept: weights are made for a block of queries at a time, in float32. What is measured is
    listed, with shapes, in `omnisink.methods.measurements`.

    Parameters
    ----------
    criterion : Criterion
        What makes a token a sink, whose part of every head output is split off.
    layers : tuple of int, optional
        Layers to measure; None is all, the last two included.
    others : tuple of Criterion
        Further criteria to mark tokens by and to measure attention to.
    sets : mapping of str to Tensor
        (B, S) bool by name: sets of tokens whose attention mass is wanted, such as the tokens of a modality.
    received : bool
        Also sum up what attention each token receives: one more pass over every block of weights.
    apart : tuple of str
        Names in `sets` of which those tokens that are sinks at the layer are measured as a set of their own too,
        called ``"NAME: sinks"``.
    """

    others: tuple[Criterion, ...] = ()
    sets: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)
    received: bool = True
    apart: tuple[str, ...] = ()

    @property
    def set_names(self) -> tuple[str, ...]:
        """Names of the measured sets, in order: what each criterion marks, `sets`, and the sinks `apart`."""
        return (
            *(criterion_name(c) for c in (self.sink_criterion, *self.others)),
            *self.sets,
            *(f"{n}{ON_SINKS}" for n in self.apart),
        )

    def chosen(self, layer: int, depth: int) -> bool:
        """Every layer, unless some were named."""
        return self.layers is None or layer in self.layers

    def residual_stream(self, layer: int, hidden: Tensor, context: Context) -> None:
        """Mark sinks by every criterion, and note activations by token and by channel."""
        super().residual_stream(layer, hidden, context)
        if layer not in context.record.sinks or not context.now.is_prefill:
            return
        token_mask = context.now.token_mask_on(hidden.device)
        context.record.magnitudes[layer] = context.record.finite.magnitudes[layer]
        marks = [context.record.sinks[layer], *(c(hidden, token_mask) for c in self.others)]
        _note(context, layer, "marked", torch.stack(marks, dim=1))
        _note(context, layer, "channel_peak", _channel_peak(hidden, token_mask))

    def head_output(self, call: AttentionCall, output: Tensor, context: Context) -> Tensor:
        """Measure, and return the head outputs unchanged."""
        marked = context.record.measured.get("marked", {}).get(call.layer)
        if context.now.is_prefill and marked is not None:
            with torch.no_grad():
                self._measure(call, output, marked.to(output.device), context)
        return output

    def _measure(self, call: AttentionCall, output: Tensor, marked: Tensor, context: Context) -> None:
        length, device = context.now.length, output.device
        query, key, value = call.query, call.prompt_keys, call.prompt_values
        token_mask = context.now.token_mask_on(device)
        if token_mask is None:
            token_mask = torch.ones(len(query), length, dtype=torch.bool, device=device)
        sinks = marked[:, 0]
        include = token_mask & ~sinks
        named = {name: self._set(name, token_mask) for name in self.sets}
        among = [named[name] & sinks for name in self.apart]
        sets = torch.cat([marked, *(chosen[:, None] for chosen in (*named.values(), *among))], dim=1)
        options = {
            "scaling": call.scaling,
            "softcap": call.softcap,
            "learned_sink": call.learned_sink,
        }
        mask = visible_keys(call, context.now.token_mask_on(device), length)
        drawn = torch.zeros(*query.shape[:3], device=device) if self.received else None
        from_sinks, mass = split_sink_part(query, key, value, sinks, sets, mask, received=drawn, **options)
        whole = output.transpose(1, 2).float()
        rest = _difference(whole, from_sinks, torch.finfo(output.dtype).eps)

        def note(name: str, measured: Tensor) -> None:
            _note(context, call.layer, name, measured)

        note("mass", masked_mean(mass.transpose(2, 3), include))
        note("mass_by_token", mass.mean(dim=1).transpose(1, 2))
        if drawn is not None:
            _note_received(drawn, num_visible_queries(mask, length), token_mask, note)
        note("split_error", self._check(query, key, value, whole, from_sinks, sinks, mask, options, token_mask))
        empty = ~sinks.any(dim=1)[:, None]

        def note_sink(name: str, measured: Tensor) -> None:
            note(name, measured.masked_fill(empty.reshape(-1, *([1] * (measured.dim() - 1))), float("nan")))

        note_sink("sink_share", part_of_output(from_sinks, whole, include))
        length_of = torch.linalg.vector_norm
        ratio = length_of(from_sinks, dim=-1) / length_of(whole, dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
        note_sink("sink_norm_ratio", masked_mean(ratio, include))
        parallel = [mean_pairwise_cosine(part, include) for part in (whole, from_sinks, rest)]
        note_sink("parallel", torch.stack(parallel, dim=1))
        note("key_norm", length_of(key.float(), dim=-1))
        note("value_norm", length_of(value.float(), dim=-1))
        sink_key, groups = sink_value(key, sinks), query.shape[1] // key.shape[1]
        note_sink("sink_key", sink_key)
        note_sink("sink_value", sink_value(value, sinks))
        other_key = sink_value(key, include).repeat_interleave(groups, dim=1)[:, :, None]
        note_sink("query_cosine", mean_cosine(query, sink_key.repeat_interleave(groups, dim=1)[:, :, None], include))
        note_sink("other_cosine", mean_cosine(query, other_key, include))
        padding = context.now.token_mask_on(device)
        first = sinks.int().argmax(dim=1)
        note_sink("sink_query", attention_from(query, key, first, padding, scaling=call.scaling).mean(dim=1))
        last = length - 1 - token_mask.flip(1).int().argmax(dim=1)
        note("last_query", attention_from(query, key, last, padding, scaling=call.scaling).mean(dim=1))

    def _set(self, name: str, token_mask: Tensor) -> Tensor:
        chosen = torch.as_tensor(self.sets[name], device=token_mask.device)
        if chosen.shape != token_mask.shape or chosen.dtype != torch.bool:
            raise OmnisinkError(
                f"the set {name!r} must be bool of the prompt's shape {tuple(token_mask.shape)}, got {chosen.dtype} "
                f"{tuple(chosen.shape)}"
            )
        return chosen & token_mask

    @staticmethod
    def _check(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        whole: Tensor,
        from_sinks: Tensor,
        sinks: Tensor,
        mask: Any,
        options: dict[str, Any],
        token_mask: Tensor,
    ) -> Tensor:
        """Read the rest out by itself for some rows; return how far the parts' sum is from the output, (B,)."""
        length = query.shape[2]
        every = slice(0, length, max(1, -(-length // _CHECKED)))
        rows = range(length)[every]
        rest = split_columns(value, sinks)[..., value.shape[-1] :]

        def mask_of_rows(chosen: slice) -> Tensor:
            parts = [mask(slice(r, r + 1)) for r in rows[chosen]]
            filler = False if parts[0].dtype == torch.bool else float("-inf")
            wide = [nn.functional.pad(p, (0, length - p.shape[-1]), value=filler) for p in parts]
            return torch.cat(wide, dim=2)

        again = attend(query[:, :, every], key, rest, mask_of_rows, **options)
        gap = (from_sinks[:, :, every] + again - whole[:, :, every]).abs().amax(dim=(1, 3))
        size = whole.abs().masked_fill(~token_mask[:, None, :, None], 0.0).amax(dim=(1, 2, 3))
        worst = gap.masked_fill(~token_mask[:, every], 0.0).amax(dim=1)
        return worst / size.clamp(min=torch.finfo(torch.float32).tiny)


def record(
    model: Any,
    prompt: Any = None,
    *,
    criterion: str | Criterion | None = None,
    others: str | Criterion | Sequence[str | Criterion] = (),
    sets: Mapping[str, Tensor] | None = None,
    spans: Sequence[Sequence[Span]] | Sequence[Span] | None = None,
    layers: int | Sequence[int] | None = None,
    received: bool = True,
    **inputs: Any,
) -> Recording:
    """Measure the sinks of a prompt with one forward pass.

    Parameters
    ----------
    model, prompt
        As for `find_sinks`: a model, what `load_model` returned, or a pipeline; and texts or inputs.
    criterion : str or Criterion, optional
        What makes a token a sink, as for `find_sinks`; None is `MassiveActivation`.
    others, sets, layers, received
        See `Recorder`.
    spans : sequence of sequences of Span, optional
        What is text, image, video and audio in each sequence, as ``loaded.spans(inputs)`` says: each modality becomes
        a set, and its sinks another, ``"audio"`` and ``"audio: sinks"``. They are known, and need not be given, where
        `model` is what `load_model` returned and the prompt a text or what its `inputs` returned.
    **inputs
        What the model takes; with a text and what `load_model` returned, what `Loaded.inputs` takes.

    Returns
    -------
    Recording
        Labelled arrays on the CPU.

    Raises
    ------
    UnsupportedModelError
        If the model's decoder cannot be read.
    OmnisinkError
        If there is no model or no prompt in what was given, a set or the spans do not fit the prompt, or the residual
        stream of a real token is not finite.
    """
    decoder = model_of(model, "record()")
    taken = inputs_of(model, prompt, inputs, "record()")
    spans = spans_of(model, taken) if spans is None else spans
    if sets is not None and not isinstance(sets, Mapping):
        raise OmnisinkError(f"sets must be masks by name, as {{'mine': mask}} with a mask (B, S), got {shown(sets)}")
    others = [others] if isinstance(others, str) or callable(others) else others
    by_modality = {} if spans is None else modality_sets(spans, taken)
    if twice := by_modality.keys() & (sets or {}).keys():
        raise OmnisinkError(f"the set {min(twice)!r} is that of a modality, which spans give: call it something else")
    recorder = Recorder(
        resolve_criterion(criterion or MassiveActivation()),
        layers_of(layers, "record()"),
        tuple(resolve_criterion(other) for other in others),
        {**(sets or {}), **by_modality},
        received,
        tuple(by_modality),
    )
    names = inspect.signature(type(as_written(decoder)).forward).parameters
    # Layers that share keys and values (Gemma 4) run on the tokens alone whose logits are asked for; all are to be
    # measured.
    parts = bool(getattr(read_anatomy(decoder).text_model.config, "num_kv_shared_layers", 0))
    for name, quiet in (("use_cache", False), ("logits_to_keep", 0 if parts else 1)):
        if name in names:
            taken.setdefault(name, quiet)
    with torch.inference_mode(), recorder(decoder) as trace:
        run_of(model, decoder, taken)
    return Recording.of(
        trace.record, recorder.set_names, [describe(c) for c in (recorder.sink_criterion, *recorder.others)]
    )


def criterion_name(criterion: Criterion) -> str:
    """Name of a criterion, as it labels sets."""
    return str(getattr(criterion, "name", type(criterion).__name__))


def _difference(whole: Tensor, part: Tensor, eps: float) -> Tensor:
    """``whole - part``, exactly zero where no more than rounding is left: noise has a direction of its own."""
    rest = whole - part
    left, size = (torch.linalg.vector_norm(t, dim=-1, keepdim=True) for t in (rest, whole))
    return rest.masked_fill_(left <= _ROUNDINGS * eps * size, 0.0)


def _note_received(drawn: Tensor, seen: Tensor, token_mask: Tensor, note: Callable[[str, Tensor], None]) -> None:
    """Turn sums over queries (B, H, S) into means over the queries that can see the key (Gu et al. 2025)."""
    mean = (drawn / seen.clamp(min=1)[:, None]).masked_fill(~token_mask[:, None], 0.0)
    note("received", mean.mean(dim=1))
    most = mean.max(dim=-1)
    note("received_most", most.values)
    note("received_where", most.indices)


def _channel_peak(hidden: Tensor, token_mask: Tensor | None) -> Tensor:
    """Largest ``|h[t, c]| / RMS(h[t])`` of any token, channel by channel, (B, d) float32."""
    wide = hidden.float()
    rms = torch.linalg.vector_norm(wide, dim=-1, keepdim=True) * hidden.shape[-1] ** -0.5
    ratio = wide.abs() / rms.clamp(min=torch.finfo(torch.float32).tiny)
    return (ratio if token_mask is None else ratio.masked_fill(~token_mask[..., None], 0.0)).amax(dim=1)


def _note(context: Context, layer: int, name: str, measured: Tensor) -> None:
    context.record.measured.setdefault(name, {})[layer] = measured
