"""A method around models of lmms-eval's own kind, run by lmms-eval itself: tiny, random, and found where they are."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from omnisink import OutRo
from omnisink.errors import OmnisinkError, UnsupportedModelError
from omnisink.integrations.lmms import tasks_folder
from omnisink.integrations.lmms.questions import load as load_questions
from omnisink.integrations.lmms.questions import variable
from tests.evaluation.benchmark_folders import lay_out
from tests.reference_outro import tiny_llama
from tests.skips import needs

pytestmark = needs("lmms-eval")

TASK, LENGTH = "daily_omni_official", 10
STRONG = "outro:gamma=3"


@pytest.fixture(scope="module", autouse=True)
def lmms_eval(tmp_path_factory: pytest.TempPathFactory):
    """Register the wrappers as a package of models would, and lay out questions."""
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.models.registry_v2 import ModelManifest

    at = "tests.integrations.lmms.tiny_wrapper"
    for name, simple, chat in (
        ("tiny_simple", "TinySimple", None),
        ("tiny_chat", None, "TinyChat"),
        ("tiny_missing", "Nothing", None),
    ):
        manifest = ModelManifest(name, simple and f"{at}.{simple}", chat and f"{at}.{chat}")
        MODEL_REGISTRY_V2.register_manifest(manifest, overwrite=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        patch.setenv(variable("daily-omni"), str(lay_out("daily-omni", tmp_path_factory.mktemp("daily"))))
        yield


@pytest.fixture(scope="module")
def manager() -> Any:
    from lmms_eval.tasks import TaskManager

    return TaskManager(include_path=str(tasks_folder()), include_defaults=False)


def around(**model_args: Any) -> Any:
    from lmms_eval.models import get_model

    return get_model("omnisink_around")(**model_args)


def said(manager: Any, model: str, **model_args: Any) -> list[str]:
    """Return the answers of a run of lmms-eval."""
    from lmms_eval.evaluator import simple_evaluate

    written = ",".join(f"{name}={value}" for name, value in model_args.items())
    run = simple_evaluate(
        model=model, model_args=written, tasks=[TASK], task_manager=manager, log_samples=True, bootstrap_iters=0
    )
    return [sample["filtered_resps"][0] for sample in run["samples"][TASK]]


def expected(method: OutRo | None) -> list[str]:
    """Return what the tiny model answers by itself, with the method put on it by hand."""
    from tests.integrations.lmms.tiny_wrapper import answer, tokens

    model, answers = tiny_llama(), []
    for doc in load_questions("daily-omni", "official"):
        ids = torch.tensor([tokens(doc["question"])])
        with method(model) if method else nullcontext():
            answers.append(answer(model, ids, torch.ones_like(ids), LENGTH))
    return answers


@pytest.mark.parametrize("inner", ["tiny_simple", "tiny_chat"])
def test_lmms_eval_answers_as_the_method_does_by_hand_and_nothing_stays(inner: str, manager: Any) -> None:
    plain, strong, weak = expected(None), expected(OutRo(gamma=3)), expected(OutRo(gamma=0.5))
    assert plain != strong != weak != plain, "the methods must show"
    for method, wanted in (("baseline", plain), (STRONG, strong), ("outro:gamma=0.5", weak), (STRONG, strong)):
        assert said(manager, "omnisink_around", inner=inner, method=method) == wanted
    assert said(manager, inner) == plain


@pytest.mark.parametrize(
    ("pretrained", "decoder"),
    [("nested", None), ("twice", None), ("engine", None), ("talker", "_model.llm"), ("nested", "model.llm")],
)
def test_the_decoder_is_found_wherever_it_is(pretrained: str, decoder: str | None, manager: Any) -> None:
    given = {} if decoder is None else {"decoder": decoder}
    got = said(manager, "omnisink_around", inner="tiny_simple", pretrained=pretrained, method=STRONG, **given)
    assert got == expected(OutRo(gamma=3))


def test_one_model_answers_twice_and_is_left_as_it_was() -> None:
    from lmms_eval.api.instance import Instance

    model = around(inner="tiny_simple", method=STRONG, pretrained="nested")
    of = {"task": "t", "doc_id": 0, "repeats": 1}
    asked = [Instance("generate_until", ("What is heard?", {"max_new_tokens": 8}), 0, of)]
    first = model.generate_until(asked)
    modules = list(model._model.modules())
    assert model.generate_until(asked) == first
    assert not any("generate" in vars(module) or module._forward_hooks for module in modules)
    other = around(inner="tiny_simple", method="baseline")
    assert other.generate_until(asked) != first
    likely = [Instance("loglikelihood", ("What is", " heard"), 0, of)]
    with OutRo(gamma=3)(other._model):
        by_hand = type(other).__mro__[2].loglikelihood(other, likely)
    assert model.loglikelihood(likely) == by_hand != other.loglikelihood(likely)


def test_an_error_that_the_model_takes_for_an_empty_answer_stops_the_run(manager: Any) -> None:
    assert "" in said(manager, "tiny_simple", fails_at=1)
    for method in ("baseline", STRONG):
        with pytest.raises(OmnisinkError, match="tiny_simple: RuntimeError: The size of tensor"):
            said(manager, "omnisink_around", inner="tiny_simple", method=method, fails_at=1)


def test_a_decoder_that_does_not_run_is_an_error(manager: Any) -> None:
    with pytest.raises(OmnisinkError, match="answered without running _model.tts under OutRo"):
        said(manager, "omnisink_around", inner="tiny_simple", pretrained="talker", decoder="_model.tts", method=STRONG)


@pytest.mark.parametrize(
    ("given", "kind", "why"),
    [
        ({}, OmnisinkError, "inner=llava_onevision"),
        ({"inner": "tiny_simpl"}, OmnisinkError, "has no model 'tiny_simpl'; did you mean tiny_simple"),
        ({"inner": "omnisink"}, OmnisinkError, "it takes a method itself"),
        ({"inner": "tiny_missing"}, OmnisinkError, "inner=tiny_missing: lmms-eval cannot import this model"),
        ({"inner": "tiny_simple", "frames": 3}, OmnisinkError, "cannot be built: AssertionError: Unexpected kwargs"),
        ({"inner": "tiny_simple", "method": "magic"}, OmnisinkError, "there is no method 'magic'"),
        ({"inner": "tiny_simple", "pretrained": "api"}, UnsupportedModelError, "no decoder of transformers was found"),
        (
            {"inner": "tiny_simple", "pretrained": "other"},
            UnsupportedModelError,
            "in TinySimple: T5.* is an encoder-decoder",
        ),
        (
            {"inner": "tiny_simple", "pretrained": "talker"},
            OmnisinkError,
            "several decoders, _model.llm, _model.tts: .* decoder=_model.llm",
        ),
        ({"inner": "tiny_simple", "decoder": "_model.llm"}, OmnisinkError, "has no module of this name"),
        ({"inner": "tiny_simple", "decoder": "_model.lm_head"}, UnsupportedModelError, "no configuration"),
    ],
)
def test_what_cannot_be_done_is_said_before_a_question_is_asked(given: dict[str, Any], kind: type, why: str) -> None:
    with pytest.raises(kind, match=why):
        around(**{"method": STRONG, **given})
