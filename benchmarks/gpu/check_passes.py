"""Whole passes on the device: against the CPU, padded and unpadded, static caches, captured and compiled steps."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch

from benchmarks.gpu.lines import Skip
from benchmarks.gpu.small import (
    METHOD,
    STEPS,
    Answer,
    answer,
    effect,
    padded,
    same,
    single,
    small_decoder,
    static,
)
from benchmarks.gpu.steps import Captured, graphs_skipped
from omnisink import OutRo
from omnisink.verification.families import FAMILIES


def as_on_the_cpu(device: torch.device) -> str:
    """A left-padded batch gets the sinks, the logits and the greedy tokens that it gets on the CPU."""
    host, model = small_decoder(torch.device("cpu")), small_decoder(device)
    ids, mask = padded(host)
    size = effect(run(host, ids, mask), answer(host, ids, mask))
    worst = 0.0
    for method in (
        METHOD,
        OutRo(gamma=-0.4),
        OutRo(gamma=3.0),
        OutRo(rotate=False),
        OutRo(relax=False),
        OutRo(decode=False),
    ):
        with method(host) as trace:
            expected = answer(host, ids, mask)
            seen = trace.sinks.to_json(), trace.relaxed, trace.rotated_tokens
        with method(model) as trace:
            found = answer(model, ids.to(device), mask.to(device))
            there = trace.sinks.to_json(), trace.relaxed, trace.rotated_tokens
        assert there == seen, f"{method}: sinks, relaxed rows or counts differ from those on the CPU"
        assert torch.equal(found.tokens, expected.tokens), f"{method}: other greedy tokens than on the CPU"
        worst = max(worst, same(found, expected, size, str(method)))
    return f"six settings, off by {worst:.1e} of the effect at most"


#: Families whose attention differs in what relaxed rows and rotation have to allow for.
OTHERS = {
    "gemma2": "eager",  # soft-capped scores
    "gpt_oss": "eager",  # learned sinks
    "granite": "sdpa",  # its own softmax scale
    "mistral_window": "sdpa",  # a window that does not cover the prompt
    "deepseek_v3": "sdpa",  # values narrower than keys
    "qwen3_5": "sdpa",  # layers without attention
    "qwen2_5_omni_thinker": "sdpa",
}


def family_as_on_the_cpu(device: torch.device, name: str) -> str:
    """A padded batch gets the sinks and the logits that it gets on the CPU, whatever the attention's peculiarity."""
    host = FAMILIES[name].build(attn_implementation=OTHERS[name])
    model = FAMILIES[name].build(attn_implementation=OTHERS[name]).to(device)
    given = FAMILIES[name].inputs(host, lengths=(24, 15), padding_side="left")
    token_mask = given["attention_mask"].bool()

    def logits(one: Any, method: Any) -> tuple[torch.Tensor, Any]:
        with torch.inference_mode(), contextlib.nullcontext() if method is None else method(one) as trace:
            made = one(**{k: v.to(one.device) for k, v in given.items()}).logits.float().cpu()[token_mask]
            return made, None if trace is None else (trace.sinks.to_json(), trace.relaxed)

    plain, _ = logits(host, None)
    size = float((logits(host, METHOD)[0] - plain).abs().max())
    assert size > 1e-3 * float(plain.abs().max()), "the method changed nothing"
    worst = 0.0
    for method in (METHOD, OutRo(rotate=False)):
        (expected, seen), (found, there) = logits(host, method), logits(model, method)
        assert there == seen, f"{method}: sinks or relaxed rows differ from those on the CPU"
        off = float((found - expected).abs().max()) / size
        assert off <= 2e-3, f"{method}: off by {off:.1e} of the effect"
        worst = max(worst, off)
    return f"off by {worst:.1e} of the effect at most"


def nothing_done(device: torch.device) -> str:
    """With nothing to do, and without a sink, the outputs are equal to the bit."""
    model = small_decoder(device)
    ids, mask = padded(model)
    without = single(model, 40, seed=5, sinks=())
    for method, given in ((OutRo(gamma=0.0, relax=False), (ids, mask)), (METHOD, (without, None))):
        plain = answer(model, *given)
        with method(model):
            found = answer(model, *given)
        equal = all(torch.equal(a, b) for a, b in zip(found.logits, plain.logits, strict=True))
        assert equal, f"{method} on {tuple(given[0].shape)}: outputs differ"
    return "gamma 0, and a prompt without a sink"


def alone(device: torch.device) -> str:
    """Every prompt of a padded batch gives what it gives by itself, with padding on either side."""
    model = small_decoder(device)
    worst = 0.0
    for side in ("left", "right"):
        ids, mask = padded(model, side)
        with METHOD(model), torch.inference_mode():
            batch = model(input_ids=ids, attention_mask=mask).logits.float().cpu()
        for b in range(len(ids)):
            token_mask = mask[b].bool()
            one = ids[b : b + 1, token_mask]
            expected = run(model, one)
            size = effect(expected, answer(model, one))
            last = int(token_mask.nonzero().max())
            found = Answer([batch[b : b + 1, last]], expected.tokens)
            worst = max(worst, same(found, Answer(expected.logits[:1], expected.tokens), size, f"{side}, prompt {b}"))
            if side == "left":
                steps = run(model, ids, mask)
                only = run(model, one, tokens=steps.tokens[b : b + 1])
                worst = max(worst, same(steps.row(b), only, size, f"decoding, prompt {b}"))
    return f"either side, off by {worst:.1e} of the effect at most"


def in_a_static_cache(device: torch.device) -> str:
    """A static cache gives what a dynamic one gives."""
    model = small_decoder(device)
    ids = single(model, 33, seed=1, sinks=(0, 15))
    expected = run(model, ids)
    size = effect(expected, answer(model, ids))
    return f"off by {same(run(model, ids, cache=static(model), tokens=expected.tokens), expected, size, 'static'):.1e}"


def captured(device: torch.device) -> str:
    """A graph that was captured by hand gives what eager steps give, and again for another prompt in its cache."""
    if device.type != "cuda":
        raise Skip("CUDA graphs need a CUDA device")
    model = small_decoder(device)
    prompts = {
        "the prompt at capture": single(model, 33, seed=1, sinks=(0, 15)),
        "a shorter prompt": single(model, 21, seed=2),
        "a prompt without a sink": single(model, 30, seed=3, sinks=()),
        "a longer prompt": single(model, 41, seed=4, sinks=(0, 3, 9)),
    }
    eager = {name: run(model, ids, cache=static(model)) for name, ids in prompts.items()}
    sinks = [name for name in prompts if "without" not in name]
    size = min(effect(eager[name], answer(model, prompts[name], tokens=eager[name].tokens)) for name in sinks)
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    cache = static(model)
    worst = 0.0
    with METHOD(model), torch.inference_mode():
        graph = None
        for name, ids in prompts.items():
            cache.reset()
            logits = [model(input_ids=ids, past_key_values=cache).logits[:, -1].float().cpu()]
            graph = Captured(model, cache, token) if graph is None else graph
            for i in range(STEPS):
                token.copy_(eager[name].tokens[:, i : i + 1])
                graph.replay()
                logits.append(graph.logits[:, -1].float().cpu())
            worst = max(worst, same(Answer(logits, eager[name].tokens), eager[name], size, name))
    return f"{len(prompts)} prompts, one graph, off by {worst:.1e} of the effect at most"


def compiled(device: torch.device, mode: str) -> str:
    """Compiled steps give what eager steps give; in reduce-overhead, in a CUDA graph."""
    model = small_decoder(device)
    how = {"mode": mode} if device.type == "cuda" else {"backend": "aot_eager"}
    prompts = single(model, 33, seed=1, sinks=(0, 15)), single(model, 33, seed=2)
    eager = [run(model, ids, cache=static(model)) for ids in prompts]
    size = effect(eager[0], answer(model, prompts[0], tokens=eager[0].tokens))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with METHOD(model), torch.inference_mode():
        forward = torch.compile(model.forward, fullgraph=True, **how)
        cache = static(model)
        worst = 0.0
        for ids, expected, what in zip(
            prompts, eager, ("the first prompt", "another prompt in the cache"), strict=True
        ):
            cache.reset()
            found = answer(model, ids, cache=cache, tokens=expected.tokens, forward=forward)
            worst = max(worst, same(found, expected, size, what))
        skipped = graphs_skipped()
    torch._dynamo.reset()
    said = f"off by {worst:.1e} of the effect at most"
    if device.type != "cuda" or mode != "reduce-overhead":
        return said
    assert not skipped, f"CUDA graphs were skipped {skipped} times ({said})"
    return f"in CUDA graphs, {said}"


def flex(device: torch.device) -> str:
    """Flex attention, which transformers compiles on a GPU, gives what sdpa gives."""
    model, other = small_decoder(device), small_decoder(device, "flex_attention")
    ids, mask = padded(model)
    expected = run(model, ids, mask)
    size = effect(expected, answer(model, ids, mask))
    stance = "default" if device.type == "cuda" else "force_eager"  # compiled for the CPU it takes minutes
    with torch.compiler.set_stance(stance), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            answer(other, ids, mask, tokens=expected.tokens)
        except Exception as error:  # the baseline's own fault, whatever it is
            first = (str(error).splitlines() or [""])[0][:120]
            raise Skip(f"the baseline does not run with it either: {type(error).__name__}: {first}") from error
        found = run(other, ids, mask, tokens=expected.tokens)
    worst = same(found, expected, size, "flex attention")
    return f"{'compiled' if stance == 'default' else 'not compiled'}, off by {worst:.1e} of the effect at most"


def run(model, ids, mask=None, **more) -> Answer:  # type: ignore[no-untyped-def]
    """Answer inside the method's block."""
    with METHOD(model):
        return answer(model, ids, mask, **more)
