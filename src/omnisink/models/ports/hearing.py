"""How the video-SALMONN 2 models hear: Whisper's encoder, and a Q-Former that makes a token of each half second.

Sound is cut into pieces of 30 seconds, the last filled with silence, and each becomes 60 tokens (arXiv 2506.15220,
section 3.1). The encoder and the Q-Former are transformers'.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omnisink.errors import OmnisinkError

#: Whisper's states in a second, and those of a window, which becomes a token.
STATES_PER_SECOND, WINDOW = 50, 25
#: Whisper's states of a piece of sound of 30 seconds.
PIECE = 1500

#: The size of Whisper large v3.
WHISPER_LARGE_V3 = {
    "num_mel_bins": 128,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "activation_function": "gelu",
    "d_model": 1280,
    "scale_embedding": False,
    "max_source_positions": PIECE,
}

#: Parts of the released names of weights, as patterns, each with the part here.
QFORMER_NAMES = {
    r"qformer\.bert\.embeddings\.LayerNorm\.": "qformer.layernorm.",
    r"qformer\.bert\.encoder\.": "qformer.encoder.",
    r"attention\.self\.": "attention.attention.",
}


def check_windows(name: str, whisper: WhisperConfig, window: float, stride: float, queries: int) -> None:
    """Refuse a checkpoint whose windows are not those of the released models, which adapters count on.

    Parameters
    ----------
    name : str
        The checkpoint, for the message.
    whisper : WhisperConfig
        Of its encoder.
    window, stride : float
        Seconds of a window, and from one to the next.
    queries : int
        Tokens that a window becomes.

    Raises
    ------
    OmnisinkError
        Naming what differs.
    """
    steps = [round(seconds * STATES_PER_SECOND) for seconds in (window, stride)]
    if steps != [WINDOW, WINDOW] or queries != 1 or whisper.max_source_positions != PIECE:
        raise OmnisinkError(
            f"{name} hears {whisper.max_source_positions / STATES_PER_SECOND:g} s at a time, in windows of "
            f"{window:g} s that begin every {stride:g} s, with {queries} queries each; ported are 30 s in windows of "
            "0.5 s with one query"
        )


def read_qformer(settings: dict[str, Any]) -> Blip2QFormerConfig:
    """Return the configuration of transformers' Q-Former for one of BERT's with cross-attention."""
    kept = ("num_attention_heads", "num_hidden_layers", "intermediate_size", "hidden_act", "layer_norm_eps")
    return Blip2QFormerConfig(
        hidden_size=settings["hidden_size"],
        encoder_hidden_size=settings["encoder_width"],
        cross_attention_frequency=settings["cross_attention_freq"],
        **{name: settings[name] for name in kept},
    )


class Hearing(nn.Module):
    """Whisper's encoder, the window-level Q-Former, and the projection to the decoder.

    Parameters
    ----------
    whisper : WhisperConfig
        Of the encoder.
    qformer : Blip2QFormerConfig
        Of the Q-Former, which has one query.
    width : int
        Width of the decoder.
    normed : bool
        Whether a layer norm stands between the encoder and the Q-Former.
    deep : bool
        Whether two more linear layers follow the projection.
    """

    def __init__(
        self, whisper: WhisperConfig, qformer: Blip2QFormerConfig, width: int, *, normed: bool, deep: bool
    ) -> None:
        super().__init__()
        self.encoder = WhisperEncoder(whisper)
        self.norm = nn.LayerNorm(whisper.d_model) if normed else nn.Identity()
        self.query = nn.Parameter(torch.zeros(1, 1, qformer.hidden_size))
        self.qformer = Blip2QFormerModel(qformer)
        self.projection = nn.Linear(qformer.hidden_size, width)
        more = (nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)) if deep else ()
        self.final = nn.Sequential(*more)

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Turn pieces of sound into tokens.

        Parameters
        ----------
        spectrograms : Tensor
            (N, M, 3000), log-mel spectrograms of N pieces of 30 seconds.

        Returns
        -------
        Tensor
            (N, 60, W).
        """
        states = self.norm(self.encoder(spectrograms).last_hidden_state)
        windows = states.unflatten(1, (-1, WINDOW)).flatten(0, 1)
        queries = self.query.expand(len(windows), -1, -1)
        heard = self.qformer(query_embeds=queries, encoder_hidden_states=windows).last_hidden_state
        tokens: Tensor = self.final(self.projection(heard))
        return tokens.view(len(spectrograms), -1, tokens.shape[-1])
