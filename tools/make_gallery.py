"""Draw the pictures of the gallery that come from committed results (`make gallery`); no model runs."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

from omnisink.evaluation.comparing.comparison import Comparison
from omnisink.study.results import StudyResults

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"


def pictures() -> dict[str, Axes]:
    """Return what is drawn, by the names of the files."""
    study = StudyResults.load(ROOT / "docs/studies/smolomni")
    comparison = Comparison.load(ROOT / "docs/results/synthav-smolomni/comparison")
    return {
        "differences": comparison.plot(),
        "study-conditions": study.plot("arms"),
        "study-heads": study.plot("heads"),
        "study-zero-k": study.plot("zero_k", measure="loss"),
    }


def main() -> None:
    """Write all of them."""
    for name, ax in pictures().items():
        path = FIGURES / f"{name}.png"
        ax.figure.savefig(path, dpi=90, bbox_inches="tight", metadata={"Software": None})
        Image.open(path).convert("RGB").quantize(128).save(path, "PNG", optimize=True)
        plt.close(ax.figure)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
