"""ImageBind's eyes and ears: two vision transformers that put pictures, video and sound into one space.

Written from the paper (arXiv 2305.05665) and the released code's shapes. transformers has no ImageBind. A picture is a
clip of two equal frames. Text, depth, heat and motion are not here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Frames of a clip of video, and the side of a patch in pixels.
FRAMES, PATCH = 2, 14
#: Side of a patch of sound in mel bins and frames, and the distance of two patches.
_SOUND_PATCH, _SOUND_STEP = 16, 10
_EPS = 1e-6


class ImageBind(nn.Module):
    """The encoders of vision and audio.

    Parameters
    ----------
    sizes : dict
        ``"vision"`` and ``"audio"``, each with ``width``, ``depth``, ``heads`` and ``positions``, the tokens of a clip
        with its class token; and ``"embedding"``, the width of the shared space.
    """

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        kernel, size = (FRAMES, PATCH, PATCH), sizes["embedding"]
        pictures = nn.Conv3d(3, sizes["vision"]["width"], kernel, stride=kernel, bias=False)
        sound = nn.Conv2d(1, sizes["audio"]["width"], _SOUND_PATCH, stride=_SOUND_STEP, bias=False)
        self.vision = Encoder(pictures, size, sounds=False, **sizes["vision"])
        self.audio = Encoder(sound, size, sounds=True, **sizes["audio"])

    @property
    def side(self) -> int:
        """Side of the pictures that it sees, in pixels."""
        return round((self.vision.positions.shape[1] - 1) ** 0.5) * PATCH


class Encoder(nn.Module):
    """One modality: patches, a transformer, and its class token projected into the shared space.

    Parameters
    ----------
    stem : nn.Module
        The convolution that makes patches.
    size : int
        Width of the shared space.
    width, depth, heads, positions : int
        Of the transformer.
    sounds : bool
        Whether it hears. Patches of sound are normalised before their positions are added, and each attention has a
        key and a value of its own; tokens of pictures are normalised after.
    """

    def __init__(
        self, stem: nn.Module, size: int, *, width: int, depth: int, heads: int, positions: int, sounds: bool
    ) -> None:
        super().__init__()
        self.stem = stem
        self.norm_patches = nn.LayerNorm(width) if sounds else nn.Identity()
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, positions, width))
        self.norm_tokens = nn.Identity() if sounds else nn.LayerNorm(width, eps=_EPS)
        self.blocks = nn.ModuleList(_Block(width, heads, own_key=sounds) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.head = nn.Linear(width, size, bias=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Embed the clips of one picture, video or sound.

        Parameters
        ----------
        clips : Tensor
            (N, 3, 2, side, side) of pictures, or (N, 1, 128, 204) of sound.

        Returns
        -------
        Tensor
            (E,), of length 1: the mean of the clips' embeddings, each of length 1 too.
        """
        patches = self.norm_patches(self.stem(clips).flatten(2).mT)
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        tokens = self.norm_tokens(tokens + self.positions)
        for block in self.blocks:
            tokens = block(tokens)
        each = F.normalize(self.head(self.norm(tokens[:, 0])), dim=-1)
        # The release scales sound by 20 here, and normalises what comes out: the scale is gone again.
        return F.normalize(each.mean(dim=0), dim=-1)


class _Block(nn.Module):
    """A layer of a transformer that normalises before attention and before the MLP."""

    def __init__(self, width: int, heads: int, *, own_key: bool) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=own_key, batch_first=True)
        self.norm_2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, tokens: Tensor) -> Tensor:
        seen = self.norm_1(tokens)
        tokens = tokens + self.attn(seen, seen, seen, need_weights=False)[0]
        return tokens + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm_2(tokens))))


def names_of(modality: str) -> dict[str, str]:
    """Return the released beginnings of the names of an encoder's weights, each with the one here."""
    theirs = {part: f"image_bind.modality_{part}.{modality}." for part in ("preprocessors", "trunks", "heads")}
    stem = "rgbt_stem.proj.1." if modality == "vision" else "rgbt_stem.proj."
    parts = {
        theirs["preprocessors"] + stem: "stem.",
        theirs["preprocessors"] + "rgbt_stem.norm_layer.": "norm_patches.",
        theirs["preprocessors"] + "cls_token": "class_token",
        theirs["preprocessors"] + "pos_embedding_helper.pos_embed": "positions",
        theirs["trunks"] + "pre_transformer_layer.0.": "norm_tokens.",
        theirs["trunks"] + "blocks.": "blocks.",
        theirs["heads"] + "0.": "norm.",
        theirs["heads"] + "2.": "head.",
    }
    return {old: f"imagebind.{modality}.{new}" for old, new in parts.items()}
