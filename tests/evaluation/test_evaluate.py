"""A comparison on one's own questions in one call: it answers, goes on, and refuses what is something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omnisink import OmnisinkError, OutRo
from omnisink.evaluation.comparing.compare import compare
from omnisink.evaluation.evaluate import evaluate
from omnisink.methods import ZeroHeads
from omnisink.methods.registry import settings_of
from omnisink.results.reading import parse_object


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Write six questions for yes or no."""
    rows = [{"id": str(i), "question": f"W{i}?", "answer": ("yes", "no")[i % 2]} for i in range(6)]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_own_questions_are_asked_and_compared(tiny: Any, questions: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    methods = {"outro": OutRo(gamma=0.3), "silent": ZeroHeads(tuple((1, head) for head in range(4)))}
    made = evaluate(tiny, questions, methods, tmp_path / "run", progress=lambda *n: told.append(n))
    assert told[-1] == (18, 18, 0)
    assert made == compare([tmp_path / "run"])
    (task,) = made["tasks"]
    assert [row["method"] for row in task["methods"]] == ["baseline", "outro", "silent"]
    assert made.answers() == [f"mine: cannot tell whether any of 2 methods is better than {made['baseline']}."]
    assert made.answers()[0] in made._repr_html_()
    manifest = parse_object((tmp_path / "run/manifest.json").read_bytes(), "the manifest")
    assert manifest["versions"]["omnisink"]
    assert manifest["model"]["class"] == "LlamaForCausalLM"
    assert manifest["methods"]["outro"]["gamma"] == 0.3


def test_a_finished_run_is_compared_again_and_another_is_refused(tiny: Any, questions: Path, tmp_path: Path) -> None:
    methods, out = {"outro": OutRo(gamma=0.3)}, tmp_path / "run"
    made = evaluate(tiny, questions, methods, out)
    asked = (out / "records.jsonl").read_bytes()
    assert evaluate(tiny, questions, methods, out) == made
    assert (out / "records.jsonl").read_bytes() == asked
    with pytest.raises(OmnisinkError, match="gamma"):
        evaluate(tiny, questions, {"outro": OutRo(gamma=0.4)}, out)


def test_a_row_that_cannot_be_asked_is_a_warning(tiny: Any, questions: Path, tmp_path: Path) -> None:
    questions.write_text(
        questions.read_text() + '\n{"id": "6", "question": "W?", "choices": ["a", "b"], "answer": "Z"}'
    )
    with pytest.warns(UserWarning, match="cannot be asked"):
        made = evaluate(tiny, questions, {"outro": OutRo()}, tmp_path / "run")
    assert made["tasks"][0]["questions"] == 6


@pytest.mark.parametrize(
    "methods", [OutRo(), [OutRo()], {"outro": OutRo}, {"outro": "outro"}, {}, {"baseline": OutRo()}]
)
def test_methods_have_names(tiny: Any, questions: Path, tmp_path: Path, methods: Any) -> None:
    with pytest.raises(OmnisinkError, match="takes methods by name, as"):
        evaluate(tiny, questions, methods, tmp_path / "run")


def test_a_bare_model_is_not_enough(tiny: Any, questions: Path, tmp_path: Path) -> None:
    for given, name in ((tiny.model, "LlamaForCausalLM"), ("smolomni", "str")):
        with pytest.raises(OmnisinkError, match=f"what load_model returned, and was given {name}"):
            evaluate(given, questions, {"outro": OutRo()}, tmp_path / "run")
    with pytest.raises(OmnisinkError, match="there is no such file"):
        evaluate(tiny, tmp_path / "none.jsonl", {"outro": OutRo()}, tmp_path / "run")


CELL = """
from dataclasses import dataclass
from omnisink.methods import Method

@dataclass(frozen=True)
class Half(Method):
    factor: float = 0.5

    def head_output(self, call, output, context):
        return {body}
"""


def test_a_class_of_a_script_is_known_by_its_code() -> None:
    def code_of_cell(body: str, file: str, above: str = "") -> Any:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(above + CELL.format(body=body), file, "exec"), names)
        found = settings_of(names["Half"]())
        assert found is not None
        return found["code_sha256"]

    first = code_of_cell("output * self.factor", "cell-1")
    assert first == code_of_cell("output * self.factor", "cell-2", above="\n\n")
    assert first != code_of_cell("output * self.factor * 1", "cell-1")
    assert first != code_of_cell("output + self.factor", "cell-1")
