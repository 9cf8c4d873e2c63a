"""A model as lmms-eval has them: it builds its own transformers model, and takes an error for an empty answer."""

from __future__ import annotations

import torch
from lmms_eval.api.model import lmms
from loguru import logger
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from tests.reference_outro import SINK, tiny_llama


def tokens(text):
    """Spell a text: the sink first, then a number for every letter."""
    return [SINK] + [10 + ord(letter) % 86 for letter in text]


def answer(model, ids, mask, length):
    """Generate, and write the tokens and how likely the last was: a random model says the same of most prompts."""
    options = {"max_new_tokens": length, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    got = model.generate(input_ids=ids, attention_mask=mask, **options)
    new = got.sequences[0, ids.shape[1] :].tolist()
    return f"{new} {got.logits[-1].log_softmax(-1).max():.5f}"


class Composite(nn.Module):
    """Stands for a model without a configuration, whose own `generate` asks the language model inside."""

    def __init__(self, llm, tts=None):
        super().__init__()
        self.llm = llm
        if tts is not None:
            self.tts = tts

    def forward(self, **inputs):
        return self.llm(**inputs)

    def generate(self, **inputs):
        return self.llm.generate(**inputs)


class Engine:
    """Stands for an engine or a pipeline: an object that holds a model."""

    def __init__(self, model):
        self.model = model

    def generate(self, **inputs):
        return self.model.generate(**inputs)


BUILDS = {
    "plain": tiny_llama,
    "nested": lambda: Composite(tiny_llama()),
    "twice": lambda: Composite(Composite(tiny_llama())),
    "engine": lambda: Engine(tiny_llama()),
    "talker": lambda: Composite(tiny_llama(), tiny_llama(seed=1)),
    "other": lambda: Composite(T5ForConditionalGeneration(T5Config(vocab_size=96, d_model=8, d_kv=4, num_layers=1))),
    "api": lambda: None,
}


class TinySimple(lmms):
    """A wrapper for simple tasks."""

    def __init__(self, pretrained="plain", batch_size=1, device="cpu", fails_at=-1, **kwargs):
        super().__init__()
        assert kwargs == {}, f"Unexpected kwargs: {kwargs}"
        self._model = BUILDS[pretrained]()
        self._device = torch.device("cpu")
        self.batch_size = int(batch_size)
        self.fails_at = fails_at
        self.asked = 0

    @property
    def model(self):
        return self._model

    @property
    def device(self):
        return self._device

    def prompts(self, requests):
        return [(request.args[0], request.args[1]["max_new_tokens"]) for request in requests]

    def generate_until(self, requests):
        answers = []
        for text, length in self.prompts(requests):
            ids = torch.tensor([tokens(text)])
            mask = torch.ones_like(ids)
            try:
                if self.asked == self.fails_at:
                    mask = mask[:, :-1]  # does not fit the ids
                answers.append(answer(self.model, ids, mask, length))
            except Exception as e:
                logger.error(f"Error {e} in generating")
                answers.append("")
            self.asked += 1
        return answers

    def loglikelihood(self, requests):
        found = []
        for text, continuation, *_ in (request.args for request in requests):
            ids = torch.tensor([tokens(text + continuation)])
            with torch.inference_mode():
                rows = self.model(input_ids=ids).logits[0].log_softmax(-1)
            own = rows[-len(continuation) - 1 : -1].gather(1, ids[0, -len(continuation) :, None])
            found.append((float(own.sum()), False))
        return found

    def generate_until_multi_round(self, requests):
        raise NotImplementedError("TODO: Implement multi-round generation")


class TinyChat(TinySimple):
    """A wrapper for chat tasks."""

    is_simple = False

    def prompts(self, requests):
        found = []
        for _, to_messages, generation, doc_id, task, split in (request.args for request in requests):
            content = to_messages(self.task_dict[task][split][doc_id])[-1]["content"]
            text = next(part["text"] for part in content if part["type"] == "text")
            found.append((text, generation["max_new_tokens"]))
        return found
