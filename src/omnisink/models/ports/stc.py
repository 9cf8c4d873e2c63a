"""The connector of VideoLLaMA 2: from the patches of some frames to tokens of a decoder, fewer in time and space.

RegNet blocks on every frame, a convolution over two frames and two by two patches, RegNet blocks again, and an MLP
(arXiv 2406.07476, section 2.2). The blocks are torchvision's; the checkpoints have timm's names for the same weights.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from torch import Tensor, nn

#: The kinds of connector, each with the padding of its convolution.
PADDINGS = {"stc_connector": 1, "stc_connector_v35": 0}
#: Blocks before and after the convolution, and how far it shrinks time, height and width.
DEPTH, SHRINK = 4, 2

#: timm's names of a block's parts, and torchvision's.
_BLOCK = {
    "conv1.conv": "f.a.0",
    "conv1.bn": "f.a.1",
    "conv2.conv": "f.b.0",
    "conv2.bn": "f.b.1",
    "se.fc1": "f.se.fc1",
    "se.fc2": "f.se.fc2",
    "conv3.conv": "f.c.0",
    "conv3.bn": "f.c.1",
    "downsample.conv": "proj.0",
    "downsample.bn": "proj.1",
}


def stc_names(theirs: str, ours: str) -> dict[str, str]:
    """Return patterns of the released names of the weights, each with the name here, as `key_mapping` takes them.

    Parameters
    ----------
    theirs, ours : str
        What comes before the connector's names, as a pattern and as text: ``"^model.mm_projector"`` and
        ``"mm_projector"``.
    """
    names = {}
    for stage in ("s1", "s2"):
        for block in range(DEPTH):
            for old, new in _BLOCK.items():
                pattern = rf"{theirs}\.{stage}\.b{block + 1}\.{re.escape(old)}\."
                names[pattern] = f"{ours}.{stage}.block0-{block}.{new}."
    return {**names, rf"{theirs}\.sampler\.": f"{ours}.sampler.", rf"{theirs}\.readout\.": f"{ours}.readout."}


def stc_length(length: int, padding: int) -> int:
    """Return what a number of frames, or of patches along a side, becomes."""
    return (length + 2 * padding - SHRINK) // SHRINK + 1


class STCConnector(nn.Module):
    """The spatial-temporal convolution connector.

    Parameters
    ----------
    seen : int
        Width of the vision tower.
    width : int
        Width of the decoder.
    padding : int
        See `PADDINGS`.
    """

    def __init__(self, seen: int, width: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.s1 = _stage(seen, width)
        self.sampler = nn.Sequential(nn.Conv3d(width, width, SHRINK, stride=SHRINK, padding=padding), nn.SiLU())
        self.s2 = _stage(width, width)
        self.readout = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, patches: Tensor) -> Tensor:
        """Turn the patches of videos into tokens.

        Parameters
        ----------
        patches : Tensor
            (B, T, P, D): T frames of P patches, P being a square.

        Returns
        -------
        Tensor
            (B, N, W), the tokens of one temporal step after those of another, row by row.
        """
        batch, frames, count, _ = patches.shape
        side = round(count**0.5)
        grid = self.s1(patches.flatten(0, 1).transpose(1, 2).unflatten(2, (side, side)))
        steps = self.sampler(grid.unflatten(0, (batch, frames)).transpose(1, 2)).transpose(1, 2)
        grid = self.s2(steps.flatten(0, 1)).unflatten(0, (batch, steps.shape[1]))
        readout: Tensor = self.readout(grid.permute(0, 1, 3, 4, 2).flatten(1, 3))
        return readout


def _stage(width_in: int, width_out: int) -> Any:
    """Return timm's `RegStage` with its defaults: depthwise 3x3, squeeze and excitation at a quarter, LayerNorm."""
    from torchvision.models.convnext import LayerNorm2d
    from torchvision.models.regnet import AnyStage, ResBottleneckBlock

    return AnyStage(
        width_in,
        width_out,
        stride=1,
        depth=DEPTH,
        block_constructor=ResBottleneckBlock,
        norm_layer=partial(LayerNorm2d, eps=1e-5),
        activation_layer=nn.SiLU,
        group_width=1,
        bottleneck_multiplier=1.0,
        se_ratio=0.25,
    )
