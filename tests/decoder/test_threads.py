"""Several threads on one model: apart, refused, or told that the block ended too early."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer
from transformers.generation import GenerationMixin

from omnisink import OmnisinkError, OutRo, UnsupportedModelError
from omnisink.decoder import generation, threads
from tests.reference_outro import prompt, tiny_llama

OPTIONS = {"max_new_tokens": 8, "do_sample": False}


def ask(model, ids, **more):
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **OPTIONS, **more)[0].tolist()


class InThread(threading.Thread):
    """Runs a function and keeps what it returned or raised."""

    def __init__(self, work):
        super().__init__()
        self._work, self.result, self.error = work, None, None
        self.start()

    def run(self):
        try:
            self.result = self._work()
        except Exception as error:
            self.error = error

    def joined(self):
        self.join(60)
        assert not self.is_alive()
        return self


class Pause(StoppingCriteria):
    """Lets a generation wait after its third token."""

    def __init__(self):
        self.reached, self.go_on, self.tokens = threading.Event(), threading.Event(), 0

    def __call__(self, input_ids, scores, **kwargs):
        self.tokens += 1
        if self.tokens == 3:
            self.reached.set()
            assert self.go_on.wait(60)
        return torch.zeros(len(input_ids), dtype=torch.bool)


@pytest.fixture(scope="module")
def expected():
    model = tiny_llama()
    found = []
    for ids in (prompt(13, (0, 6)), prompt(11, (3,))):
        with OutRo()(model):
            found.append(ask(model, ids))
    return found


def test_threads_that_take_turns_get_what_they_get_alone(expected):
    model = tiny_llama()
    with OutRo()(model):
        first = InThread(lambda: ask(model, prompt(13, (0, 6)))).joined()
        second = InThread(lambda: ask(model, prompt(11, (3,)))).joined()
        assert [first.result, second.result, ask(model, prompt(13, (0, 6)))] == [*expected, expected[0]]


def test_generations_whose_passes_take_turns_do_not_mix(expected):
    """One waits in the middle while another runs from its prompt to its end."""
    model, pause = tiny_llama(), Pause()
    with OutRo()(model):
        slow = InThread(lambda: ask(model, prompt(13, (0, 6)), stopping_criteria=StoppingCriteriaList([pause])))
        assert pause.reached.wait(60)
        assert ask(model, prompt(11, (3,))) == expected[1]
        pause.go_on.set()
        assert slow.joined().result == expected[0]


def test_a_pass_inside_another_threads_pass_is_refused():
    model, entered, go_on = tiny_llama(), threading.Event(), threading.Event()

    def hold(*_):
        entered.set()
        assert go_on.wait(60)

    ids = prompt(13, (0, 6))
    with OutRo()(model), torch.inference_mode():
        alone = model(input_ids=ids).logits
        hook = model.model.layers[2].register_forward_hook(hold)
        first = InThread(lambda: torch.inference_mode()(model)(input_ids=ids).logits)
        assert entered.wait(60)
        with pytest.raises(OmnisinkError, match="another thread is in a pass"):
            model(input_ids=prompt(9))
        go_on.set()
        hook.remove()
        assert torch.equal(first.joined().result, alone)
        assert torch.equal(model(input_ids=ids).logits, alone)


def test_a_pass_that_failed_holds_nobody_up():
    model = tiny_llama()
    hook = model.model.layers[2].register_forward_hook(lambda *_: 1 / 0)
    with OutRo()(model), torch.inference_mode():
        failed = InThread(lambda: model(input_ids=prompt(9))).joined()
        assert isinstance(failed.error, ZeroDivisionError)
        hook.remove()
        model(input_ids=prompt(9))


@pytest.mark.parametrize("joined", ["in the block", "after it"])
def test_streaming_from_a_worker_thread(tokenizer, joined, expected):
    model, ids = tiny_llama(), prompt(13, (0, 6))
    for _ in range(5):
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
        with OutRo()(model) as trace:
            worker = InThread(lambda streamer=streamer: ask(model, ids, streamer=streamer))
            text = "".join(streamer)
            if joined == "in the block":
                worker.joined()
        assert worker.joined().error is None
        assert worker.result == expected[0]
        assert text == tokenizer.decode(expected[0][13:])
        assert trace.rotated_tokens[0] == 11 + 7


def test_a_block_that_ends_while_a_thread_generates_is_an_error_for_both():
    model, pause = tiny_llama(), Pause()
    plain = ask(model, prompt(13, (0, 6)))
    with pytest.raises(OmnisinkError, match="still generating"), OutRo()(model):
        worker = InThread(lambda: ask(model, prompt(13, (0, 6)), stopping_criteria=StoppingCriteriaList([pause])))
        assert pause.reached.wait(60)
        threading.Timer(0.2, pause.go_on.set).start()
    assert isinstance(worker.joined().error, OmnisinkError)
    assert "Join the thread inside the block" in str(worker.error)
    assert ask(model, prompt(13, (0, 6))) == plain


def test_a_thread_that_is_not_done_in_time_is_told_at_its_end(monkeypatch):
    monkeypatch.setattr(threads, "_PATIENCE", 0.05)
    model, pause = tiny_llama(), Pause()
    with pytest.raises(OmnisinkError, match="still generating"), OutRo()(model):
        worker = InThread(lambda: ask(model, prompt(13, (0, 6)), stopping_criteria=StoppingCriteriaList([pause])))
        assert pause.reached.wait(60)
    pause.go_on.set()
    assert isinstance(worker.joined().error, OmnisinkError)


def test_what_goes_wrong_in_the_block_is_not_hidden():
    model, pause = tiny_llama(), Pause()
    with pytest.raises(KeyError, match="on purpose"), OutRo()(model):
        worker = InThread(lambda: ask(model, prompt(13), stopping_criteria=StoppingCriteriaList([pause])))
        assert pause.reached.wait(60)
        threading.Timer(0.2, pause.go_on.set).start()
        raise KeyError("on purpose")
    assert isinstance(worker.joined().error, OmnisinkError)


def replica_of(module):
    """Copy a module as DataParallel does for one device: all it holds is shared, but for the modules themselves."""
    replica = module._replicate_for_data_parallel()
    replica._parameters = dict(module._parameters)
    for name, child in module._modules.items():
        replica._modules[name] = None if child is None else replica_of(child)
    return replica


@pytest.mark.parametrize("make", [replica_of, copy.deepcopy], ids=["replica", "deep copy"])
def test_a_copy_of_the_model_is_refused_in_the_block_and_plain_after_it(make):
    model, ids = tiny_llama(), prompt(9)
    with torch.inference_mode():
        plain = model(input_ids=ids).logits
        with OutRo()(model):
            twin = make(model)
            with pytest.raises(UnsupportedModelError, match="a copy of the LlamaModel"):
                twin(input_ids=ids)
            rotated = model(input_ids=ids).logits
        assert torch.equal(twin(input_ids=ids).logits, plain)
        for one in (model, twin):
            with OutRo()(one):
                assert torch.equal(one(input_ids=ids).logits, rotated)


def test_a_copy_generates_with_its_own_weights():
    model, ids = tiny_llama(), prompt(9)
    with OutRo()(model):
        twin = copy.deepcopy(model)
    twin.load_state_dict(tiny_llama(seed=1).state_dict())
    assert ask(twin, ids) == ask(tiny_llama(seed=1), ids)


def test_nothing_is_left_on_transformers_own_class():
    before = dict(vars(GenerationMixin))
    model, other = tiny_llama(), tiny_llama(seed=1)
    with OutRo()(model), OutRo()(other):
        assert len(generation._GUARDS) == 2
    assert dict(vars(GenerationMixin)) == before
    assert generation._GUARDS == {}


def test_another_model_may_draft_meanwhile():
    model, other, ids = tiny_llama(), tiny_llama(seed=1), prompt(13)
    expected = ask(other, ids, prompt_lookup_num_tokens=3)
    with OutRo()(model):
        assert ask(other, ids, prompt_lookup_num_tokens=3) == expected


def test_a_generate_of_the_objects_own_is_watched():
    model, pause = tiny_llama(), Pause()
    model.generate = lambda **kwargs: GenerationMixin.generate(model, **kwargs)
    own = model.generate
    with pytest.raises(OmnisinkError, match="still generating"), OutRo()(model):
        worker = InThread(lambda: ask(model, prompt(13), stopping_criteria=StoppingCriteriaList([pause])))
        assert pause.reached.wait(60)
        threading.Timer(0.2, pause.go_on.set).start()
    assert isinstance(worker.joined().error, OmnisinkError)
    assert model.generate is own
