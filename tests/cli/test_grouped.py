"""Groups of options: one dataclass in the verb, one option for each of its fields on the command line."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from omnisink.cli.ask import ask
from omnisink.cli.eval import evaluate
from omnisink.cli.find import find
from omnisink.cli.grouped import grouped
from omnisink.cli.options import LoadingOptions
from omnisink.cli.study import study
from omnisink.cli.tune import tune


@dataclass(frozen=True)
class Kitchen:
    """What is cooked on."""

    stove: Annotated[str, typer.Option("--stove", help="Which stove.")] = "gas"
    hot: bool = False


@grouped
def cook(dish: Annotated[str, typer.Argument()] = "soup", kitchen: Kitchen = Kitchen(), salt: int = 1) -> None:
    print(dish, kitchen.stove, kitchen.hot, salt)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "soup gas False 1"),
        (["rice", "--stove", "wood", "--hot", "--salt", "3"], "rice wood True 3"),
        (["--no-hot"], "soup gas False 1"),
    ],
)
def test_the_fields_are_options(words: list[str], said: str) -> None:
    app = typer.Typer()
    app.command()(cook)
    assert CliRunner().invoke(app, words, catch_exceptions=False).output.strip() == said


def test_from_python_every_option_has_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    cook("bread", stove="wood")
    assert capsys.readouterr().out.strip() == "bread wood False 1"
    with pytest.raises(TypeError, match="sugar"):
        cook(sugar=1)


@pytest.mark.parametrize("verb", [ask, find, study, evaluate, tune])
def test_every_verb_that_loads_a_model_has_the_same_options_for_it(verb: object) -> None:
    given = inspect.signature(verb).parameters  # type: ignore[arg-type]
    assert {one.name: one.default for one in fields(LoadingOptions)}.items() <= {
        name: one.default for name, one in given.items()
    }.items()
