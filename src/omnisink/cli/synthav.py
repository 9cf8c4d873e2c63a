"""`omnisink synthav`: clips with questions whose answers are known."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from omnisink.cli import options
from omnisink.cli.output import note, print_json, working


class SplitName(str, Enum):
    """The splits, none of which shares a seed with another."""

    train = "train"
    tune = "tune"
    test = "test"


def synthav(
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for the clips and questions.jsonl.")],
    split: Annotated[SplitName, typer.Option(help="Only the test split has combinations unseen in training.")] = (
        SplitName.test
    ),
    n: Annotated[int, typer.Option("--n", min=1, help="Number of questions.")] = 100,
    json: options.JsonFlag = False,
) -> None:
    """Render SynthAV: mp4 clips of shapes and sounds, and questions about them."""
    from collections import Counter

    with working("rendering"):
        from omnisink.synthav.dataset import QUESTIONS, write_split

        made = list(write_split(out, split.value, n))
    counts = Counter(q.category for q in made)
    clips = len({q.clip for q in made})
    if json:
        print_json({"out": out, "split": split.value, "clips": clips, "questions": len(made), "categories": counts})
        return
    print(f"{out}: {clips} clips, {len(made)} questions in {QUESTIONS}")
    note(", ".join(f"{count} {category}" for category, count in counts.items()))
