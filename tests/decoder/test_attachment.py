"""A block leaves the model as it was, and attachments keep out of each other's way."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from omnisink import OmnisinkError, OutRo, UnsupportedModelError, find_sinks
from omnisink.decoder.patching import PATCHES
from omnisink.methods.base import Method
from tests.reference_outro import prompt, tiny_llama

BACKENDS = ["sdpa", "eager"]


def fingerprint(model):
    """Everything a block might leave behind: attributes, hooks, forwards, weights' names, transformers' tables."""
    modules = {}
    for name, module in model.named_modules():
        own = {
            k: list(v.items()) if isinstance(v, OrderedDict) else v
            for k, v in vars(module).items()
            if k not in ("_parameters", "_buffers", "_modules")
        }
        modules[name] = (type(module), module.forward, own)
    tables = dict(ALL_ATTENTION_FUNCTIONS._local_mapping), {k: v for k, v in vars(Cache).items() if callable(v)}
    return modules, list(model.state_dict()), tables, dict(PATCHES._held)


@dataclass(frozen=True)
class Doubled(Method):
    """Double every head output."""

    def head_output(self, call, output, context):
        return output * 2


@dataclass(frozen=True)
class Failing(Method):
    """Fail at a layer."""

    layer: int = 2

    def head_output(self, call, output, context):
        if call.layer == self.layer:
            raise RuntimeError("on purpose")
        return output


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ending", ["quiet", "exception in the block", "exception in a layer", "refused"])
def test_the_model_is_as_it_was(backend, ending):
    model = tiny_llama(backend)
    ids = prompt(9)
    before = fingerprint(model)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
        if ending == "quiet":
            with OutRo()(model):
                assert not torch.equal(model(input_ids=ids).logits, logits)
        elif ending == "exception in the block":
            with pytest.raises(KeyboardInterrupt), OutRo()(model):
                model(input_ids=ids)
                raise KeyboardInterrupt
        elif ending == "exception in a layer":
            with pytest.raises(RuntimeError, match="on purpose"), Failing()(model):
                model(input_ids=ids)
        else:
            with pytest.raises(OmnisinkError, match="layers 0 to 5"), OutRo(relax_layers=(6,))(model):
                pass
        assert fingerprint(model) == before
        assert torch.equal(model(input_ids=ids).logits, logits)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("method", "ids"),
    [
        (OutRo(gamma=0.0, relax=False), prompt(9, (0, 4))),
        (OutRo(rotate=False, relax=False), prompt(9, (0, 4))),
        (OutRo(gamma=3.0), prompt(9, ()).clamp(min=10)),
        (OutRo(min_activation=1e9), prompt(9, (0, 4))),
    ],
    ids=["gamma 0", "both parts off", "no sink in the prompt", "no sink by the thresholds"],
)
def test_idle_is_bit_identical(method, ids, backend):
    model = tiny_llama(backend)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 4, "do_sample": False, "output_logits": True}
    plain = model.generate(input_ids=ids, return_dict_in_generate=True, **options)
    with method(model):
        idle = model.generate(input_ids=ids, return_dict_in_generate=True, **options)
    assert torch.equal(plain.sequences, idle.sequences)
    assert all(torch.equal(a, b) for a, b in zip(plain.logits, idle.logits, strict=True))


def test_attention_maps_are_the_models_own():
    model = tiny_llama("eager")
    with torch.inference_mode():
        with OutRo()(model):
            inside = model(input_ids=prompt(9), output_attentions=True).attentions
        outside = model(input_ids=prompt(9), output_attentions=True).attentions
    assert torch.equal(inside[0], outside[0])  # the first layer's queries have not been moved yet


def test_two_of_a_kind_on_one_model_are_refused():
    model = tiny_llama()
    before = fingerprint(model)
    with OutRo()(model):
        inside = fingerprint(model)
        with pytest.raises(OmnisinkError, match="already attached"), OutRo(gamma=1.0)(model):
            pass
        assert fingerprint(model) == inside
    assert fingerprint(model) == before


@pytest.mark.parametrize("outer_first", [True, False])
def test_different_methods_compose_and_may_end_in_any_order(outer_first):
    model = tiny_llama()
    ids = prompt(9)
    before = fingerprint(model)
    with torch.inference_mode():
        with Doubled()(model):
            doubled = model(input_ids=ids).logits
        with OutRo()(model):
            rotated = model(input_ids=ids).logits
        first, second = OutRo()(model), Doubled()(model)
        first.__enter__()
        second.__enter__()
        both = model(input_ids=ids).logits
        assert not torch.equal(both, doubled)
        assert not torch.equal(both, rotated)
        (first if outer_first else second).__exit__(None, None, None)
        assert torch.equal(model(input_ids=ids).logits, doubled if outer_first else rotated)
        (second if outer_first else first).__exit__(None, None, None)
    assert fingerprint(model) == before


def test_sinks_can_be_found_inside_another_methods_block():
    model = tiny_llama()
    with OutRo()(model) as trace:
        found = find_sinks(model, input_ids=prompt(9, (0, 4)))
    assert found.positions(1) == trace.sinks.positions(1) == [0, 4]


def test_models_side_by_side_do_not_mix():
    one, other = tiny_llama(), tiny_llama(seed=1)
    ids = prompt(9)
    with torch.inference_mode():
        plain = other(input_ids=ids).logits
        with OutRo()(one) as trace:
            assert torch.equal(other(input_ids=ids).logits, plain)
            with pytest.raises(OmnisinkError, match="empty"):
                _ = trace.sinks
            with OutRo(gamma=0.2)(other) as second:
                gentle = other(input_ids=ids).logits
                one(input_ids=ids)
            assert not torch.equal(gentle, plain)
            assert trace.rotated_tokens == second.rotated_tokens
        assert torch.equal(other(input_ids=ids).logits, plain)


def test_a_copy_of_an_attached_model_is_untouched_after_the_block():
    model = tiny_llama()
    with OutRo()(model):
        twin = copy.deepcopy(model)
    with torch.inference_mode():
        assert torch.equal(model(input_ids=prompt(9)).logits, tiny_llama()(input_ids=prompt(9)).logits)
    assert list(twin.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_with_their_own_models(backend):
    models = [tiny_llama(backend, seed=s) for s in range(4)]
    ids = prompt(11, (0, 5))
    before = fingerprint(models[0])

    def answer(model, gamma):
        with OutRo(gamma=gamma)(model), torch.inference_mode():
            return model(input_ids=ids).logits

    expected = [answer(m, 0.5 * (i + 1)) for i, m in enumerate(models)]
    found = [[] for _ in models]

    def work(i):
        for _ in range(15):
            found[i].append(answer(models[i], 0.5 * (i + 1)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(models))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, results in enumerate(found):
        assert len(results) == 15
        assert all(torch.allclose(r, expected[i], atol=1e-6) for r in results)
    assert fingerprint(models[0]) == before


def test_switching_the_attention_inside_the_block_is_noticed():
    model = tiny_llama("sdpa")
    with pytest.raises(UnsupportedModelError, match="no attention layer"), OutRo()(model), torch.inference_mode():
        model.set_attn_implementation("eager")
        model(input_ids=prompt(9))


def test_layers_run_outside_their_model_are_noticed():
    model = tiny_llama()
    hidden = torch.randn(1, 4, 48)
    rotary = model.model.rotary_emb(hidden, torch.arange(4)[None])
    with pytest.raises(UnsupportedModelError, match="outside a call"), OutRo()(model):
        model.model.layers[0](hidden, position_embeddings=rotary)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.TransformerEncoderLayer(4, 2)], ids=["linear", "torch layer"])
def test_what_is_not_a_transformers_model_is_refused(model):
    with pytest.raises(UnsupportedModelError, match="not a transformers model"), OutRo()(model):
        pass


def test_encoder_decoders_are_refused():
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(T5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=2))
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"), OutRo()(model):
        pass


def test_the_trace_is_readable_after_the_block_and_shows_the_last_prefill():
    model = tiny_llama()
    with OutRo()(model) as trace, torch.inference_mode():
        model(input_ids=prompt(9, (0,)))
        model(input_ids=prompt(12, (3, 5)))
    assert trace.sinks.positions(0) == [3, 5]
    assert trace.relaxed[:2] == [(0, 0, 3), (0, 0, 5)]


def test_masks_prepared_by_the_caller_tell_padding():
    model = tiny_llama()
    ids = prompt(8, (0, 3))
    batch = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    mask = torch.tensor([[0] * 3 + [1] * 8])
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    causal = torch.ones(11, 11, dtype=torch.bool).tril()[None, None] & mask[:, None, None].bool()
    prepared = {
        "bool": causal,
        "float": torch.zeros(1, 1, 11, 11).masked_fill(~causal, torch.finfo(torch.float32).min),
    }
    with OutRo()(model) as trace, torch.inference_mode():
        expected = model(input_ids=batch, attention_mask=mask, position_ids=position_ids).logits[0, 3:]
        for kind in prepared.values():
            found = model(input_ids=batch, attention_mask=kind, position_ids=position_ids).logits[0, 3:]
            assert (found - expected).abs().max() < 1e-5
            assert trace.sinks.positions(0) == [3, 6]
            assert trace.sinks.token_mask.tolist() == [[False] * 3 + [True] * 8]


def test_generated_state_ends_with_its_cache():
    import gc
    import weakref

    model = tiny_llama()
    with OutRo()(model), torch.inference_mode():
        cache = DynamicCache(config=model.config)
        model(input_ids=prompt(9), past_key_values=cache)
        direction = weakref.ref(next(iter(vars(cache)["_omnisink_states"].values())).tensors[0])
        model(input_ids=prompt(5))  # the trace now speaks of another prompt
        del cache
        gc.collect()
        assert direction() is None
