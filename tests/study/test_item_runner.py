"""An item in front of a model: what its loss and answer are, and that later runs start where they are told."""

from __future__ import annotations

import pytest
import torch

from omnisink.cli.demo import CLIP
from omnisink.errors import OmnisinkError
from omnisink.methods.ablation import ReplaceSinkValue, ZeroHeads
from omnisink.methods.outro import OutRo
from omnisink.questions.items import Item, read_items
from omnisink.study.item_measurements import EVER, ItemMeasurements
from omnisink.study.item_runner import item_runner


def logits_of(loaded, inputs):
    with torch.inference_mode():
        return loaded.model(**inputs, use_cache=False).logits[0].double()


def test_the_loss_of_a_passage_is_the_mean_over_its_tokens(tiny):
    item = Item("p", passage="Wa stone lies in the grass", cluster="p")
    with item_runner(tiny, item) as runner:
        ids = torch.tensor([tiny.tokenizer.encode(item.passage)])
        log_likelihoods = logits_of(tiny, {"input_ids": ids}).log_softmax(-1)
        expected = -sum(float(log_likelihoods[i, int(ids[0, i + 1])]) for i in range(ids.shape[1] - 1)) / (
            ids.shape[1] - 1
        )
        assert runner.base.loss == pytest.approx(expected, rel=1e-5)
        assert runner.base.right is None


def test_the_loss_of_a_letter_counts_every_spelling_of_one_token(tiny):
    item = Item("q", "which is it", "B", ("red", "blue"), cluster="q")
    with item_runner(tiny, item) as runner:
        prompt = tiny.inputs("which is it\nA. red\nB. blue\nAnswer with the letter.")
        log_likelihoods = logits_of(tiny, prompt)[-1].softmax(-1)
        spelled = [tiny.tokenizer.encode(text) for text in ("B", " B")]
        expected = -torch.stack([log_likelihoods[ids[0]] for ids in spelled if len(ids) == 1]).sum().log()
        assert runner.base.loss == pytest.approx(float(expected), rel=1e-5)
        assert (
            runner.base.said
            == tiny.tokenizer.decode([int(log_likelihoods.argmax())], skip_special_tokens=True).strip()
        )
        assert runner.base.right == (runner.base.said == "B")


def test_an_answer_of_several_tokens_is_told_as_it_goes_on(tiny):
    item = Item("f", "what is it", "stone", cluster="f")
    with item_runner(tiny, item) as runner:
        gold = tiny.tokenizer.encode("stone")
        assert len(gold) == 5
        prompt = tiny.inputs("what is it")
        ids = torch.cat([prompt["input_ids"], torch.tensor([gold])], dim=1)
        log_likelihoods = logits_of(tiny, {"input_ids": ids}).log_softmax(-1)[-len(gold) - 1 : -1]
        expected = -float(log_likelihoods.gather(1, torch.tensor(gold)[:, None]).mean())
        assert runner.base.loss == pytest.approx(expected, rel=1e-5)
        assert runner.base.right == (log_likelihoods.argmax(-1).tolist() == gold)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_run_from_a_layer_is_the_whole_run_to_the_bit(tiny, start):
    item = Item("q", "which is it", "B", ("red", "blue"), cluster="q")
    method = ZeroHeads(((3, 1),))
    with item_runner(tiny, item) as runner:
        changed = runner.run(method, start=start)
        with torch.inference_mode(), method(tiny.model):
            whole = tiny.model(**runner.inputs, use_cache=False).logits[0, -1].float().log_softmax(-1)
        assert changed.loss == float(-whole[runner._gold[1]].logsumexp(0))
        assert changed.loss != runner.base.loss
        assert runner.run(method, start=None) is runner.base
        assert runner.run(ZeroHeads(((0, 0),)), start=0).loss != runner.base.loss


def test_the_model_is_as_it_was_after_the_block(tiny):
    ids = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    before = logits_of(tiny, ids)
    keys = {name: set(vars(module)) for name, module in tiny.model.named_modules()}
    with pytest.raises(RuntimeError), item_runner(tiny, Item("p", passage="Wa stone", cluster="p")) as runner:
        runner.run(OutRo(), start=0)
        raise RuntimeError
    assert torch.equal(logits_of(tiny, ids), before)
    assert {name: set(vars(module)) for name, module in tiny.model.named_modules()} == keys


def test_a_passage_of_one_token_is_refused(tiny):
    with pytest.raises(OmnisinkError, match="two tokens"), item_runner(tiny, Item("p", passage="W", cluster="p")):
        pass


def test_the_planted_sink_is_found_before_anything_is_recorded(tiny, items_file):
    for item in read_items(items_file):
        with item_runner(tiny, item) as runner:
            measurements = ItemMeasurements(runner, None)
            assert measurements.positions.positions == (0,)
            assert measurements.first_layer() == 0
            assert measurements.recording.sets == ["massive_activation", "text", EVER, "text: sinks"]
            assert (measurements.recording.mass_on("text: sinks") == measurements.recording.mass_on(EVER)).all()
            assert measurements.by_layer("split_error").max() < 1e-5


@pytest.mark.real
def test_a_clip_is_answered_as_ask_answers_it(smolomni):
    item = Item("c", "Which sound is heard?", "A", ("clock", "bell", "drum", "buzz"), video=CLIP, cluster="demo")
    said = smolomni.ask(item.question, video=CLIP, choices=list(item.choices), max_new_tokens=1).text
    with item_runner(smolomni, item) as runner:
        assert runner.base.said == said == "A"
        assert runner.base.right
        assert {span.modality for span in runner.spans} == {"text", "video", "audio"}
        assert sum(int(members.sum()) for members in runner.sets().values()) == runner.length
        whole = logits_of(smolomni, runner.inputs)[-1]
        assert runner.base.loss == pytest.approx(float(-whole.log_softmax(-1)[runner._gold[1]].logsumexp(0)), abs=1e-5)
        # No sink before layer 12, so nothing can change before it: the layers are replayed.
        assert ItemMeasurements(runner, None).first_layer() == 12
        zeroed = runner.run(ReplaceSinkValue(), start=12)
        assert zeroed.loss == runner.run(ReplaceSinkValue(), start=0).loss != runner.base.loss
