"""Names of methods, and what they stand for: omnisink's own, those of other packages, and those in a file."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest

import omnisink.methods
from omnisink import OutRo
from omnisink.errors import OmnisinkError
from omnisink.methods.ablation import ZeroHeads, ZeroSinkKey
from omnisink.methods.base import Method
from omnisink.methods.catalogue import BEGIN, END, with_list
from omnisink.methods.controls import OutRoControl
from omnisink.methods.criteria import FirstToken, MassiveActivation, Positions, RandomTokens, SinkDimension
from omnisink.methods.knockout import KnockoutTokens
from omnisink.methods.names import BUILT_IN
from omnisink.methods.registry import (
    Registered,
    find_method,
    parse_method,
    parse_methods,
    registered_methods,
    settings_of,
)

HALF = '''
    """Head outputs of one layer scaled down."""

    from __future__ import annotations

    from dataclasses import dataclass

    from omnisink.methods.base import Method


    @dataclass(frozen=True)
    class Half(Method):
        """Scale every head output of a layer.

        And say no more.
        """

        factor: float = 0.5
        layer: int | None = None
        loud: bool = False

        def __post_init__(self):
            if self.factor < 0:
                raise ValueError(f"factor must not be negative, got {self.factor}")

        def head_output(self, call, output, context):
            return output * self.factor if self.layer in (None, call.layer) else output


    @dataclass(frozen=True)
    class Unfinished(Method):
        pass


    class Plain:
        pass
'''


@pytest.fixture
def half(tmp_path):
    """Write a file with methods, and return its path."""
    file = tmp_path / "half.py"
    file.write_text(textwrap.dedent(HALF))
    return file


def test_names_stand_for_the_settings_they_say():
    found = parse_methods(
        " baseline, outro,outro:rotate,outro:relax,outro:away,outro:random:seed=3,outro:relax:tau=0.2,outro:gamma=2 ",
        OutRo(gamma=0.5, tau=0.3),
    )
    assert found == {
        "baseline": None,
        "outro": OutRo(gamma=0.5, tau=0.3),
        "outro:rotate": OutRo(gamma=0.5, tau=0.3, relax=False),
        "outro:relax": OutRo(gamma=0.5, tau=0.3, rotate=False),
        "outro:away": OutRo(gamma=-0.5, tau=0.3),
        "outro:random:seed=3": OutRoControl(gamma=0.5, tau=0.3, direction="random", seed=3),
        "outro:relax:tau=0.2": OutRo(gamma=0.5, tau=0.2, rotate=False),
        "outro:gamma=2": OutRo(gamma=2.0, tau=0.3),
    }
    assert next(iter(found)) == "baseline"


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("outro:no-decode", OutRo(decode=False)),
        ("outro:decode=off", OutRo(decode=False)),
        ("outro:no-decode:away:gamma=2", OutRo(gamma=-2.0, decode=False)),
        ("outro:detect_layers=[0,2,5]", OutRo(detect_layers=(0, 2, 5))),
        ("outro:detect_layers=0+2+5:relax_layers=none", OutRo(detect_layers=(0, 2, 5))),
        ("outro-control:direction=layer:gamma=1e-1", OutRoControl(direction="layer", gamma=0.1)),
        ("zero-sink-key:channels=4", ZeroSinkKey(channels=4)),
        ("zero-heads:heads=[(3,1),(4,0)]", ZeroHeads(heads=((3, 1), (4, 0)))),
        (
            "zero-sink-key:criterion=sink_dimension(channels=[5,7],threshold=30):layers=3",
            ZeroSinkKey(criterion=SinkDimension((5, 7), 30.0), layers=(3,)),
        ),
        ("knockout-tokens:criterion=positions(positions=[0])", KnockoutTokens(criterion=Positions((0,)))),
        (
            "knockout-tokens:criterion=random_tokens(like=massive_activation(min_activation=50),seed=2)",
            KnockoutTokens(criterion=RandomTokens(MassiveActivation(50.0), 2)),
        ),
        (
            "knockout-tokens:criterion=first_token(like=massive_activation,others=true)",
            KnockoutTokens(criterion=FirstToken(MassiveActivation(), others=True)),
        ),
    ],
)
def test_every_setting_of_every_method_can_be_written(name, method):
    assert parse_method(name) == method


def test_away_turns_the_strength_that_was_asked_for_whatever_the_order():
    assert parse_methods("outro:away:gamma=2,outro:gamma=2:away") == {
        "outro:away:gamma=2": OutRo(gamma=-2.0),
        "outro:gamma=2:away": OutRo(gamma=-2.0),
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", "name at least one method"),
        (" , ", "name at least one method"),
        ("baseline,baseline", "baseline is named twice"),
        ("no-such", "there is no method 'no-such': use one of baseline, outro, "),
        ("baseline:gamma=3", "there is no method 'baseline'"),
        ("outro:halves", "'halves' is none of rotate"),
        ("outro:gamma", "'gamma' is none of"),
        ("outro:gamma=strong", "outro:gamma=strong: 'strong' is not a number"),
        ("outro:gamma=nan", "gamma must be a finite number"),
        ("outro:gamma=1:gamma=2", "gamma is given twice"),
        ("outro:tau=0", "tau must be a positive number"),
        ("outro:seed=1", "'seed' is none of rotate"),
        ("outro:decode=maybe", "'maybe' is neither true nor false"),
        ("outro:detect_layers=[0,x]", "'x' is not a whole number"),
        ("outro:detect_layers=[0,1", "']' is missing"),
        ("outro:detect_layers=0,1]", "']' closes nothing"),
        ("zero-heads", "heads"),
        ("zero-heads:heads=[(3,1,2)]", "has 3 values, 2 are expected"),
        ("replace-sink-value:values=none:criterion=__import__('os')", "names no criterion"),
        ("knockout-tokens:criterion=sink_dimension(138)", "written as name=value"),
        ("knockout-tokens:criterion=sink_dimension(chanels=[1])", "chanels"),
        ("knockout-tokens:criterion=positions(positions=[-1])", "not negative"),
        ("knockout-tokens:criterion=" + "(" * 500 + ")" * 500, "criterion"),
    ],
)
def test_what_stands_for_nothing_is_one_clear_error(names, message):
    with pytest.raises(OmnisinkError) as caught:
        parse_methods(names)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_seed_of_a_run_is_that_of_what_has_none_of_its_own():
    assert parse_methods("outro,outro:random,outro:random:seed=3", seed=7) == {
        "outro": OutRo(),
        "outro:random": OutRoControl(direction="random", seed=7),
        "outro:random:seed=3": OutRoControl(direction="random", seed=3),
    }


def test_a_method_in_a_file_is_named_by_the_file_and_its_class(half):
    made = parse_method(f"{half}::Half:factor=0.2:layer=3:loud")
    assert type(made).__name__ == "Half"
    assert (made.factor, made.layer, made.loud) == (0.2, 3, True)
    assert parse_method(f"{half}::Half:layer=none").layer is None
    # The same file gives the same class, so that equal settings are equal methods.
    assert parse_method(f"{half}::Half:factor=0.2:layer=3:loud") == made
    assert find_method(f"{half}::Half") is type(made)


def test_a_run_knows_the_code_of_a_method_in_a_file(half):
    before = settings_of(parse_method(f"{half}::Half"))
    assert before["factor"] == 0.5
    other = half.with_name("other.py")
    other.write_text(half.read_text().replace("self.factor if", "self.factor * 1 if"))
    after = settings_of(parse_method(f"{other}::Half"))
    assert before["code_sha256"] != after["code_sha256"]
    assert {**before, "code_sha256": ""} == {**after, "code_sha256": ""}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no-such.py::Half", "there is no file no-such.py"),
        ("{half}::Whole", "has no class 'Whole'; the methods in it: Half, Unfinished"),
        ("{half}::", "has no class ''"),
        ("{half}::Plain", "Plain in {half} is not a subclass of omnisink.methods.Method"),
        ("{half}::Unfinished", "does not override head_output"),
        ("{half}::Half:factor=-1", "factor must not be negative"),
        ("{half}::Half:size=2", "'size' is none of factor=, layer=, loud="),
        ("{broken}::Half", "cannot be imported: ZeroDivisionError: division by zero"),
        ("{bare}::Bare", "is not a dataclass: decorate it with @dataclass(frozen=True)"),
    ],
)
def test_a_file_without_such_a_method_is_one_clear_error(half, spec, message):
    broken, bare = half.with_name("broken.py"), half.with_name("bare.py")
    broken.write_text("1 / 0\n")
    bare.write_text(
        "from omnisink.methods.base import Method\n"
        "class Bare(Method):\n    def head_output(self, call, output, context):\n        return output\n"
    )
    places = {"half": half, "broken": broken, "bare": bare}
    with pytest.raises(OmnisinkError) as caught:
        parse_methods(spec.format(**places))
    assert message.format(**places) in str(caught.value)


def test_every_method_of_the_package_is_registered_with_what_a_user_needs_to_know():
    found = {one.name: one for one in registered_methods()}
    assert found["outro"].kind is OutRo
    for one in found.values():
        assert issubclass(one.kind, Method)
        assert one.summary.endswith(".")
        assert all(isinstance(text, str) for text in one.settings().values())
    assert found["outro"].settings()["gamma"] == "3.0"
    assert found["zero-heads"].settings()["heads"] == "required"


def test_what_was_measured_is_said_of_one_class_only():
    class Own(OutRo):
        needs_spans = True
        needs = "calibration"

    own = Registered("own", Own, "a test").facts()
    outro = Registered("outro", OutRo, "omnisink").facts()
    assert outro["measured"]
    assert own["measured"] == ""
    assert own["source"] == outro["source"]
    assert (outro["needs"], own["needs"]) == ("", "modality spans; calibration")


def test_the_table_compares_all_methods():
    page = with_list(f"{BEGIN}\n{END}")
    head, line, *rows = [one for one in page.splitlines() if one.startswith("|")][: len(BUILT_IN) + 2]
    assert head == ("| method | what it does | paper | licence of the release | needs | ours | cost | measured here |")
    assert line.count("---") == 8
    assert [row.split("`")[1] for row in rows] == list(BUILT_IN)
    assert all(row.count(" | ") == 7 and "|  |" not in row for row in rows)


def test_settings_are_plain_data():
    assert settings_of(None) is None
    said = settings_of(parse_method("outro:random"))
    assert (said["name"], said["direction"]) == ("OutRoControl", "random")
    for name in ("outro:detect_layers=1+2", "knockout-tokens:criterion=random_tokens(like=positions(positions=[0]))"):
        json.dumps(settings_of(parse_method(name)))


def test_the_page_of_methods_is_what_the_code_says():
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    assert with_list(page) == page, "run: omnisink methods --write docs/methods.md"


@pytest.fixture
def package(half, tmp_path, monkeypatch):
    """Install a package with a method, as pip lays it out, and return its folder."""
    site = tmp_path / "site"
    info = site / "half_package-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "half_package.py").write_text(half.read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-package\nVersion: 1.0\n")
    points = info / "entry_points.txt"
    points.write_text("[omnisink.methods]\nhalf = half_package:Half\n")
    monkeypatch.syspath_prepend(site)
    yield points
    sys.modules.pop("half_package", None)


def test_a_method_of_another_package_is_named_by_its_entry_point(package):
    made = parse_method("half:factor=0.25")
    assert (type(made).__module__, made.factor) == ("half_package", 0.25)
    (found,) = (one for one in registered_methods() if one.name == "half")
    assert (found.origin, found.summary) == ("half-package", "Scale every head output of a layer.")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("half = half_package:Whole", "the method half (half_package:Whole) cannot be loaded: AttributeError"),
        ("half = no_such_package:Half", "cannot be loaded: ModuleNotFoundError"),
        ("half = half_package:Plain", "is not a subclass of omnisink.methods.Method"),
        ("outro = half_package:Half", "has the name of one of omnisink's own"),
    ],
)
def test_an_entry_point_that_is_no_method_is_one_clear_error(package, line, message):
    package.write_text(f"[omnisink.methods]\n{line}\n")
    with pytest.raises(OmnisinkError) as caught:
        registered_methods()
    assert message in str(caught.value)


def test_the_names_for_those_who_write_methods_can_be_imported_from_one_place():
    for name in omnisink.methods.__all__:
        assert getattr(omnisink.methods, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        omnisink.methods.nothing  # noqa: B018
