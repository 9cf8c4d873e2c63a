"""The attention of a backend with OutRo after it: two small subclasses, made for whatever backend vLLM has chosen.

The subclass of the implementation lets the backend attend and then works on the head outputs; the subclass of the
metadata builder asks, once a pass, what there is to do. Neither knows which backend it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from omnisink.errors import OmnisinkError
from omnisink.serving.sequences import Step


class _Building:
    """Mixed into the class of a metadata builder."""

    plan: Callable[[Any], Step]

    def build(self, common_prefix_len: int, common_attn_metadata: Any, *args: Any, **named: Any) -> Any:
        metadata = super().build(common_prefix_len, common_attn_metadata, *args, **named)  # type: ignore[misc]
        metadata.outro = type(self).plan(common_attn_metadata)
        return metadata

    @classmethod
    def get_cudagraph_support(cls, vllm_config: Any, kv_cache_spec: Any) -> Any:
        """Allow full graphs only for decoding: a pass with prompts depends on which prompts there are."""
        from vllm.v1.attention.backend import AttentionCGSupport

        own = super().get_cudagraph_support(vllm_config, kv_cache_spec)  # type: ignore[misc]
        most = AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE
        return most if own.value > most.value else own


@cache
def attending(kind: type) -> type:
    """Return the subclass of an implementation's class, whose objects need an `OutRoLayer` as their attribute `outro`.

    It has that class as its only base, so that the class of an object that is there already can become the subclass.
    """

    def forward(
        self: Any,
        layer: Any,
        query: Any,
        key: Any,
        value: Any,
        kv_cache: Any,
        attn_metadata: Any,
        output: Any,
        output_scale: Any = None,
        output_block_scale: Any = None,
    ) -> Any:
        if output_scale is not None or output_block_scale is not None:
            raise OmnisinkError("head outputs are quantized inside attention, where OutRo cannot change them any more")
        result = kind.forward(self, layer, query, key, value, kv_cache, attn_metadata, output)  # type: ignore[attr-defined]
        step = getattr(attn_metadata, "outro", None)
        if step is not None:
            self.outro.act(step, query, key, value, output)
        return result

    return type(f"OutRo{kind.__name__}", (kind,), {"forward": forward})


def backend_with(kind: Any, plan: Callable[[Any], Step]) -> type:
    """Return the subclass of a backend's class whose builder asks `plan` what a pass has to do.

    Parameters
    ----------
    kind : type
        vLLM's backend.
    plan : callable
        Gets the metadata common to all layers, once a pass.

    Returns
    -------
    type
        With the name of `kind` for vLLM's own look-ups.
    """
    builder: Any = type(f"OutRo{kind.get_builder_cls().__name__}", (_Building, kind.get_builder_cls()), {})
    builder.plan = staticmethod(plan)
    implementation = attending(kind.get_impl_cls())
    return type(
        f"OutRo{kind.__name__}",
        (kind,),
        {
            "get_builder_cls": staticmethod(lambda: builder),
            "get_impl_cls": staticmethod(lambda: implementation),
        },
    )
