"""The method of docs/add-a-method.md, from a file and from a package, in every command that takes a method."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from omnisink.cli.app import app
from omnisink.errors import OmnisinkError
from omnisink.integrations.lmms.settings import read_method
from omnisink.methods.registry import parse_method
from omnisink.results.records import read_records
from tests.skips import needs

PAGE = Path(__file__).parents[2] / "docs" / "add-a-method.md"
#: A class without a search space or presets, and with a derived range that goes beyond what it takes.
SECOND = '''
from dataclasses import dataclass
from typing import Literal

from omnisink.methods import Method


@dataclass(frozen=True)
class Half(Method):
    """Scale every head output."""

    factor: float = 0.5
    part: Literal["all", "first"] = "all"
    on: bool = True
    heads: int = 2

    def __post_init__(self):
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor must be over 0 and at most 1, got {self.factor}")

    def head_output(self, call, output, context):
        return output * self.factor if self.on and (self.part == "all" or call.layer == 0) else output
'''


@pytest.fixture(scope="module")
def code() -> str:
    """Return the example of the documentation."""
    found = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return str(found[0])  # Those after it are parts of other methods.


@pytest.fixture(scope="module")
def file(code: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the example to a file of its own."""
    path = tmp_path_factory.mktemp("outside") / "toward_mean.py"
    path.write_text(code)
    return path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install a package with an entry point, as pip lays it out."""
    site = tmp_path_factory.mktemp("site")
    info = site / "half_package-1.0.dist-info"
    info.mkdir()
    (site / "half_package.py").write_text(SECOND)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[omnisink.methods]\nhalf = half_package:Half\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield
    sys.modules.pop("half_package", None)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write eight questions with two answers each."""
    path: Path = tmp_path_factory.mktemp("task") / "mine.jsonl"
    rows = [
        {"id": f"q{i}", "question": "x" * (i + 1), "choices": ["red", "blue"], "answer": "AB"[i % 2]} for i in range(8)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def typed(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_example_is_short_and_keeps_the_promises(file: Path, code: str, llama_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert len(code.splitlines()) <= 55
    model = AutoModelForCausalLM.from_pretrained(llama_folder).eval()
    short, long = torch.tensor([[3, 4, 5]]), torch.tensor([[7, 8, 9, 10, 11]])
    moved = parse_method(f"{file}::TowardMean:strength=0.4")
    with torch.inference_mode():
        plain = model(long).logits
        with parse_method(f"{file}::TowardMean:strength=0")(model):
            assert torch.equal(model(long).logits, plain)
        with moved(model):
            alone, other = model(short).logits, model(long).logits
            ids = torch.tensor([[0, 0, 3, 4, 5], long[0].tolist()])
            mask = torch.tensor([[0, 0, 1, 1, 1], [1] * 5])
            batch = model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
            steps = model.generate(short, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
        assert torch.equal(model(long).logits, plain)
    torch.testing.assert_close(batch[0, 2:], alone[0])
    torch.testing.assert_close(batch[1], other[0])
    assert not torch.allclose(other, plain)
    assert steps.sequences.shape[1] > 3
    # By hand, at the first layer: what entered the output projection, moved toward the mean of the values.
    seen: list[torch.Tensor] = []
    hook = model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    values: list[torch.Tensor] = []
    other_hook = model.model.layers[0].self_attn.v_proj.register_forward_hook(lambda *given: values.append(given[2]))
    with torch.inference_mode():
        model(long)
        with moved(model):
            model(long)
    hook.remove()
    other_hook.remove()
    mean = values[0].mean(dim=1).view(1, 2, 8).repeat_interleave(2, dim=1).flatten(1)
    torch.testing.assert_close(seen[1], seen[0] + 0.4 * (mean[:, None] - seen[0]))


def test_it_answers_a_question(file: Path, package: None, llama_folder: Path) -> None:
    words = ("ask", "--model", llama_folder, "what is it", "--max-new-tokens", 3, "--json", "--compare")
    said = json.loads(typed(*words, "--method", f"{file}::TowardMean:away:strength=0.9"))
    assert (said["method"]["name"], said["method"]["strength"]) == ("TowardMean", -0.9)
    assert len(said["method"]["code_sha256"]) == 64
    assert said["sinks"] == said["rotated_tokens"] == said["skipped_layers"] == {}
    assert said["answer_without"] == json.loads(typed(*words))["answer_without"]
    assert json.loads(typed(*words, "--method", "half:factor=0.2"))["method"] == {
        "name": "Half",
        "factor": 0.2,
        "part": "all",
        "on": True,
        "heads": 2,
    }
    alone = json.loads(typed(*words[:-1], "--method", "baseline"))
    assert alone["method"] is None
    assert alone["answer"] == said["answer_without"]
    named = json.loads(typed(*words, "--method", "outro:relax", "--tau", 0.3))
    assert (named["method"]["tau"], named["method"]["rotate"]) == (0.3, False)
    told = CliRunner().invoke(app, [str(w) for w in words if w != "--json"] + ["--method", f"{file}::TowardMean"])
    assert "with TowardMean(strength=0.1, decode=True)" in told.stdout
    assert "it looks for no sinks" in told.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ask", "why?", "--method", "{file}", "--gamma", "2"), "--gamma is a setting of OutRo"),
        (("ask", "why?", "--method", "{file}", "--no-relax"), "--no-relax is a setting of OutRo"),
        (("ask", "why?", "--method", "baseline", "--tau", "2"), "--tau is a setting of OutRo"),
        (("ask", "why?", "--method", "outro,baseline"), "one method at a time"),
        (("ask", "why?", "--method", "baseline", "--compare"), "the baseline is not a method to compare"),
        (("ask", "why?", "--method", "no-such"), "there is no method 'no-such'"),
        (("ask", "why?", "--method", "{file}:strength=nan"), "strength must be a finite number"),
        (("eval", "--methods", "baseline,{file}", "--gamma", "2"), "--gamma is a setting of OutRo"),
        (("study", "--quick", "--methods", "baseline"), "compared with the baseline"),
        (("study", "--quick", "--questions", "heads", "--methods", "{file}"), "ask causality too"),
        (("tune", "--method", "baseline"), "the baseline has no settings"),
        (("tune", "--method", "zero-heads:heads=[(0,1)]"), "has no setting that can be searched"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(file: Path, words: tuple[str, ...], message: str) -> None:
    asked = [word.format(file=f"{file}::TowardMean") for word in words]
    with pytest.raises(OmnisinkError, match=re.escape(message)):
        CliRunner().invoke(app, asked, catch_exceptions=False)


def test_sinks_are_found_while_it_acts(file: Path, llama_folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Wnobody had seen the rain")
    words = ("find", "--model", llama_folder, "--text", text, "--json")
    plain = json.loads(typed(*words))
    moved = json.loads(typed(*words, "--method", f"{file}::TowardMean:strength=1"))
    assert "method" not in plain
    assert moved["method"]["strength"] == 1.0
    assert moved["sinks"]["0"] == plain["sinks"]["0"]
    assert moved["magnitudes"]["1"] != plain["magnitudes"]["1"]
    assert "TowardMean" in typed(*words[:-1], "--method", f"{file}::TowardMean")


def test_a_benchmark_compares_it_with_outro(
    file: Path, package: None, code: str, task: Path, llama_folder: Path, tmp_path: Path
) -> None:
    names = ["baseline", "outro:gamma=0.5", f"{file}::TowardMean:strength=0.9", "half:factor=0.2"]
    words = ("eval", "--model", llama_folder, "--task", task, "--methods", ",".join(names), "--no-page", "--out")
    said = typed(*words, tmp_path / "shared")
    assert "TowardMean" in said
    typed(*words, tmp_path / "alone", "--no-share", "--no-compare")
    shared, alone = (
        {(r["id"], r["method"]): (r["text"], r["loss"]) for r in read_records(tmp_path / name)}
        for name in ("shared", "alone")
    )
    assert shared == alone
    assert {method for _, method in shared} == set(names)
    assert any(shared[f"q{i}", names[2]] != shared[f"q{i}", "baseline"] for i in range(8))
    manifest = json.loads((tmp_path / "shared" / "manifest.json").read_text())
    assert manifest["methods"][names[2]]["strength"] == 0.9
    # Taken up with the same code; refused with other code under the same name.
    typed(*words, tmp_path / "shared", "--no-compare")
    other = tmp_path / "other" / file.name
    other.parent.mkdir()
    other.write_text(code + "\nVERSION = 2\n")
    for path, mine in ((file, code), (other, code + "\nVERSION = 2\n")):
        path.write_text(mine)
    renamed = {name.replace(str(file), str(other)): value for name, value in manifest["methods"].items()}
    (tmp_path / "shared" / "manifest.json").write_text(json.dumps({**manifest, "methods": renamed}))
    changed = [str(word).replace(str(file), str(other)) for word in (*words, tmp_path / "shared")]
    with pytest.raises(OmnisinkError, match="code_sha256"):
        CliRunner().invoke(app, changed, catch_exceptions=False)


@needs("ray")
@pytest.mark.slow
def test_workers_of_a_cluster_are_given_its_code(file: Path, task: Path, llama_folder: Path, tmp_path: Path) -> None:
    names = f"baseline,{file}::TowardMean:strength=0.9"
    words = ("eval", "--model", llama_folder, "--task", task, "--methods", names, "--no-page", "--no-compare", "--out")
    typed(*words, tmp_path / "here")
    typed(*words, tmp_path / "ray", "--engine", "ray", "--workers", 1)
    from omnisink.evaluation.running.parts import read_parts

    here, there = (
        {(r["id"], r["method"]): r["text"] for r in read_parts(tmp_path / name)} for name in ("here", "ray")
    )
    assert here == there
    assert len(here) == 16


def test_it_is_an_arm_of_the_study(file: Path, package: None, llama_folder: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    rows = [{"id": f"i{i}", "question": "is it so" + "?" * i, "answer": "yes"} for i in range(3)]
    items.write_text("\n".join(map(json.dumps, rows)))
    names = [f"{file}::TowardMean:strength=0.9", "half:factor=0.2", "outro:away"]
    words = ["study", "--model", llama_folder, "--data", items, "--questions", "causality", "--seeds", 1]
    words += ["--gamma", 0.5, "--out", tmp_path / "study"]
    said = typed(*words, "--methods", ",".join(names))
    assert f"The method {names[0]}: " in said
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    arms = {row["arm"]: row for row in results["causality"]["arms"]}
    assert {f"method {name}" for name in names} <= arms.keys()
    assert arms[f"method {names[0]}"]["items"] == 3
    assert abs(arms[f"method {names[0]}"]["loss_change"]) > 1e-4
    assert arms[f"method {names[2]}"]["arm"] != "away-0.5"
    manifest = json.loads((tmp_path / "study" / "manifest.json").read_text())
    assert manifest["plan"]["methods"][names[0]]["code_sha256"]
    assert manifest["plan"]["methods"][names[1]] == {
        "name": "Half",
        "factor": 0.2,
        "part": "all",
        "on": True,
        "heads": 2,
    }
    assert names[0] in (tmp_path / "study" / "page.html").read_text()
    with pytest.raises(OmnisinkError, match="methods"):
        CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.mark.parametrize("name", ["{file}::TowardMean", "half"])
def test_its_settings_are_tuned_and_come_back(
    name: str, file: Path, package: None, task: Path, llama_folder: Path, tmp_path: Path
) -> None:
    name = name.format(file=file)
    out = tmp_path / "tune"
    words = ("--model", llama_folder, "--task", task)
    said = typed("tune", *words, "--method", name, "--out", out, "--trials", 6, "--folds", 2)
    results = json.loads((out / "results.json").read_text())
    assert results["method"] == name
    tried = [trial["settings"] for trial in results["trials"]]
    if name == "half":
        # Ranges come from the fields; what the class refuses, beyond 1, is not tried.
        assert results["search"]["factor"] == [0.05, 5.0]
        assert results["search"]["part"] == ["all", "first"]
        assert results["search"]["on"] == [True, False]
        assert results["search"]["heads"] == [1, 20]
        assert all(0 < one["factor"] <= 1 for one in tried)
    else:
        assert results["search"]["strength"] == [0.01, 1.0]
        assert tried[0] == {"strength": 0.1, "decode": True}
        assert all(one["decode"] for one in tried)
    path = out / "tiny-llama.json"
    if results["off"]:
        assert "nothing to keep in a profile" in said
        assert not path.exists()
        return
    profile = json.loads(path.read_text())
    assert profile["method"] == name
    made = type(parse_method(name)).from_profile(path)
    assert made.profile is not None
    run = tmp_path / "run"
    typed("eval", *words, "--methods", f"baseline,{name}", "--profile", path, "--out", run, "--no-compare")
    manifest = json.loads((run / "manifest.json").read_text())
    kept = {key: value for key, value in manifest["methods"][name].items() if key in profile["settings"]}
    assert kept == profile["settings"]
    with pytest.raises(OmnisinkError, match="which is not among the methods"):
        typed("eval", *words, "--methods", "baseline,outro", "--profile", path, "--out", tmp_path / "no")


def test_lmms_eval_names_it(file: Path, package: None) -> None:
    assert read_method(f"{file}::TowardMean:strength=0.3", "smolomni", None, 0.1) == parse_method(
        f"{file}::TowardMean:strength=0.3"
    )
    assert read_method("half", "smolomni", None, 0.1) == parse_method("half")
    with pytest.raises(OmnisinkError, match="gamma is a setting of OutRo"):
        read_method("half", "smolomni", 0.3, 0.1)
