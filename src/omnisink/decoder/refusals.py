"""What this room refuses, in words: the errors are made here, and raised where the fault is seen.

A run without a fault passes none of it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from omnisink.errors import OmnisinkError, UnsupportedModelError

#: Keywords by which engines pass several sequences in one row; there "the prompt" is not what the layer received.
PACKED = {
    "cache": "continuous batching (a paged cache)",
    "cu_seq_lens_q": "sequences packed into one row (cu_seq_lens_q)",
    "cu_seq_lens_k": "sequences packed into one row (cu_seq_lens_k)",
}


def no_configuration(model: str, instead: str) -> UnsupportedModelError:
    """Refuse a model that is not one of transformers, with what to pass in its place."""
    return UnsupportedModelError(f"{model} is not a transformers model: it has no configuration{instead}")


def encoder_decoder(model: str) -> UnsupportedModelError:
    """Refuse a model with an encoder."""
    return UnsupportedModelError(
        f"{model} is an encoder-decoder model; sinks of its decoder would share prompts with the encoder"
    )


def stacked_streams(model: str) -> UnsupportedModelError:
    """Refuse a model in which a token has no one activation."""
    return UnsupportedModelError(
        f"{model} carries several stacked residual streams (AltUp) through each layer; "
        "the method is defined on one residual stream"
    )


def unreachable(model: str, reason: str) -> UnsupportedModelError:
    """Refuse a model none of whose layers can be reached."""
    return UnsupportedModelError(f"{model} cannot be reached through transformers' attention interface: {reason}")


def no_layers(model: str, depth: int | None, instead: str) -> UnsupportedModelError:
    """Refuse a model whose decoder layers cannot be found, with what to pass in its place."""
    what = "decoder layers" if depth is None else f"{depth} decoder layers"
    return UnsupportedModelError(f"{model}: no list of {what} was found under its text configuration{instead}")


def several_decoders(model: str, paths: list[str]) -> UnsupportedModelError:
    """Refuse a model with more than one decoder, with what to pass in its place."""
    named = " or ".join(f"model.{path}" for path in paths)
    return UnsupportedModelError(f"{model} has more than one text decoder; pass the one you mean, {named}")


def packed(keyword: str) -> UnsupportedModelError:
    """Refuse a call whose rows are not one sequence each."""
    return UnsupportedModelError(
        f"{PACKED[keyword]} is not supported: sinks and medians belong to one prompt, which this call does not keep "
        "apart"
    )


def unknown_backend(backend: str) -> UnsupportedModelError:
    """Refuse an attention implementation that transformers does not know."""
    return UnsupportedModelError(f"attention implementation {backend!r} is not registered with transformers")


def no_eager_function(module: nn.Module) -> UnsupportedModelError:
    """Refuse an attention module whose file has no function for "eager"."""
    return UnsupportedModelError(f"{type(module).__name__}: its file has no eager attention function")


def answer(layer: int, method: object, given: Any, expected: tuple[int, ...]) -> OmnisinkError:
    """Refuse head outputs that a method gives in place of a layer's attention: a second one, or of another shape."""
    name = type(method).__name__
    if tuple(given.shape) != expected:
        return OmnisinkError(
            f"{name} answers the attention of layer {layer} with head outputs of shape {tuple(given.shape)}, but "
            f"(B, S, H, D') is {expected}"
        )
    return OmnisinkError(
        f"{name} answers the attention of layer {layer}, which another method on this model has answered already: one "
        "of the two would be without effect. Run one at a time, or keep their layers apart"
    )


def already_attached(name: str, model: nn.Module) -> OmnisinkError:
    """Refuse two methods of a kind on one model."""
    return OmnisinkError(f"{name} is already attached to this {type(model).__name__}")


def ended_while_generating(name: str) -> OmnisinkError:
    """Refuse a block that ends while another thread is at work in it."""
    return OmnisinkError(
        f"the block of {name} ended while something was still generating, which was stopped: half of it would have "
        "been without the method. Join the thread inside the block"
    )


def copy_of_model(module: nn.Module, name: str) -> UnsupportedModelError:
    """Refuse a call of a copy of the model, made inside the block."""
    return UnsupportedModelError(
        f"this is a copy of the {type(module).__name__} that {name} is on, as DataParallel makes for each device: "
        "what belongs to one prompt could not be kept apart. Put the method on the copy"
    )


def no_residual_stream(index: int, layer: nn.Module, given: object) -> UnsupportedModelError:
    """Refuse a layer that is given something else than one residual stream."""
    what = tuple(given.shape) if hasattr(given, "shape") else type(given).__name__
    return UnsupportedModelError(
        f"layer {index} ({type(layer).__name__}) receives {what}, not one residual stream (B, S, d)"
    )


def outside_text_model(text_model: nn.Module) -> UnsupportedModelError:
    """Refuse layers that run without a call of the module that is given the mask."""
    return UnsupportedModelError(
        f"the decoder layers ran outside a call of {type(text_model).__name__}, so that their padding is unknown"
    )


def not_called_as_module(text_model: nn.Module, layer: int | None) -> UnsupportedModelError:
    """Refuse layers whose hooks are never called."""
    which = "none of its layers was" if layer is None else f"layer {layer} was not"
    return UnsupportedModelError(
        f"{type(text_model).__name__} ran, but {which} called as a module, so that its hooks never saw the residual "
        "stream. Layers have to be called as layer(...), not as layer.forward(...)"
    )


def unusable_cache(cache: Any, layer: nn.Module) -> UnsupportedModelError:
    """Refuse a cache that the layer does not take, or that cannot be asked how much it holds."""
    kind = type(layer).__name__
    if cache is None:
        return UnsupportedModelError(
            f"the model keeps a cache, but {kind} takes none that can be found (an argument called past_key_values): "
            "prompts and generated tokens could not be told apart. Call the model with use_cache=False"
        )
    return UnsupportedModelError(
        f"{kind} is given a {type(cache).__name__} as its cache, which does not say how many tokens it holds. "
        "Use a cache of transformers, such as DynamicCache, or use_cache=False"
    )


def warm_cache() -> OmnisinkError:
    """Refuse a cache that was filled before the block."""
    return OmnisinkError(
        "the cache already holds tokens computed outside this method; their keys and values would have to be computed "
        "again. Start the conversation inside the `with` block, with an empty cache"
    )


def other_batch(batch: int, before: int) -> OmnisinkError:
    """Refuse a pass with another number of sequences than its cache was filled with."""
    return OmnisinkError(
        f"this pass has {batch} sequences, but its cache was filled with {before}: "
        "the sink values of the others are unknown"
    )


def cut_prompt(held: int, length: int) -> OmnisinkError:
    """Refuse a cache that no longer holds its whole prompt."""
    return OmnisinkError(
        f"the cache was cut to {held} of the {length} tokens of its prompt: what was cut off, as a draft "
        "that was run with the prompt, has had its part in the sinks. Run the prompt in a pass of its own"
    )


def mask_of_another_shape(shape: tuple[int, ...], batch: int, length: int) -> UnsupportedModelError:
    """Refuse a mask (B, T) that is not of this pass."""
    return UnsupportedModelError(
        f"the attention mask has shape {shape}, which does not cover {batch} x {length} tokens"
    )


def not_reached(model: nn.Module, before: set[str], now: set[str]) -> UnsupportedModelError:
    """Refuse a prefill that reached no attention layer, with the attention implementations of before and now."""
    if now != before:
        was, became = (" and ".join(sorted(names)) for names in (before, now))
        why = (
            f"its attention implementation was changed inside the block, from {was} to {became}. "
            "Change it before the block"
        )
    elif now == {"eager"}:
        why = (
            "with attn_implementation='eager' its code calls a function of its own, past transformers' attention "
            "interface. Load the model with attn_implementation='sdpa'"
        )
    else:
        why = "its attention does not go through transformers' attention interface"
    return UnsupportedModelError(f"no attention layer of {type(model).__name__} was reached: {why}")


def recomputation() -> UnsupportedModelError:
    """Refuse layers that the backward pass runs once more."""
    return UnsupportedModelError(
        "gradient checkpointing runs the layers a second time in the backward pass, outside the pass of their "
        "prompt: the gradients would be those of the model without the method. Call "
        "model.gradient_checkpointing_disable(), or run without gradients (torch.no_grad())"
    )


def block_ended() -> OmnisinkError:
    """Refuse a pass that begins when the block is being left."""
    return OmnisinkError(
        "the block of the method ended while this thread was generating; what is generated after it would "
        "be without the method. Join the thread inside the block"
    )


def half_generated() -> OmnisinkError:
    """Refuse a generation that has gone on beyond its block."""
    return OmnisinkError("the block of the method ended while this thread was generating: half of it is without")


def two_threads() -> OmnisinkError:
    """Refuse two passes at a time."""
    return OmnisinkError(
        "another thread is in a pass of this model: what belongs to one prompt could not be kept apart. "
        "Let threads take turns, or give each a model of its own"
    )


def batching(name: str) -> UnsupportedModelError:
    """Refuse continuous batching."""
    return UnsupportedModelError(
        f"{name} is not supported: continuous batching packs several prompts into one row, and sinks belong "
        "to one prompt. Use generate() with a padded batch"
    )


def drafts() -> UnsupportedModelError:
    """Refuse assisted decoding."""
    return UnsupportedModelError(
        "assisted decoding runs the prompt and a draft of what follows in one pass, so that the draft would count as "
        "prompt: it would change the sinks and the answer. Leave assistant_model, prompt_lookup_num_tokens and "
        "assistant_early_exit out inside the `with` block"
    )


def chunked_prefill() -> UnsupportedModelError:
    """Refuse a prompt in several passes."""
    return UnsupportedModelError(
        "prefill_chunk_size splits one prompt over several passes: the first chunk's sinks could not see the "
        "rest. Leave it out inside the `with` block"
    )


def spans_not_asked_for(method: object) -> OmnisinkError:
    """Refuse a look at modalities that nobody has prepared."""
    name = type(method).__name__
    return OmnisinkError(
        f"{name} looks at context.spans without having asked for it: write needs_spans: ClassVar[bool] = True in the "
        "class. Only then the ids of a prompt are noted as the model is called"
    )


def no_head(model: str) -> UnsupportedModelError:
    """Refuse a model without a language model's head."""
    return UnsupportedModelError(f"{model} returns no logits to contrast: pass the model that has the language head")


def no_logits(model: str) -> UnsupportedModelError:
    """Refuse a call whose output does not name its logits."""
    return UnsupportedModelError(
        f"{model} was called so that its output names no logits: call it with return_dict=True"
    )


def no_prompt(names: list[str]) -> UnsupportedModelError:
    """Refuse a call in which no tokens are found."""
    return UnsupportedModelError(
        f"neither input_ids nor inputs_embeds are among the arguments {', '.join(names)}, so no second pass can be run"
    )


def not_merged(layer: int, why: str) -> UnsupportedModelError:
    """Refuse a layer whose keys and values two runs of a prompt cannot have in common."""
    return UnsupportedModelError(
        f"keys and values of two runs cannot be merged at layer {layer}: {why}. Use a dynamic or a static cache, or "
        "merge at an earlier layer"
    )


def no_ids_to_read_again() -> OmnisinkError:
    """Refuse to read a prompt again of which only embeddings are known."""
    return OmnisinkError(
        "a second pass that reads the prompt anew for every token needs its ids: call the model with input_ids, or "
        'let the pass go on from a cache, as with AVCD(remask="prefill")'
    )


def prompts_moved() -> OmnisinkError:
    """Refuse to read prompts again whose pictures and sound stand in another order by now."""
    return OmnisinkError(
        "the sequences of the cache are no longer those of the prefill, or in another order, so their pictures and "
        "sound cannot be read anew for every token. Keep the sequences together, or let the second pass go on from a "
        'cache, as with AVCD(remask="prefill")'
    )
