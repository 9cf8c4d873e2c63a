"""Write what `omnisink ask` answers with SmolOmni, for the test that asks a server the same.

    python -m tests.serving.make_omni

Run in the environment of `make test`: SmolOmni's processor needs a newer transformers than vLLM 0.32 allows, so the
answers cannot be made in the environment of `make test-serving`.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from omnisink import OutRo, load_model

OUT = Path(__file__).with_name("omni.json")
CLIP = Path(__file__).parents[2] / "src" / "omnisink" / "cli" / "demo.mp4"
QUESTIONS = ("What is in the picture?", "What do you hear?", "What colour is the star?")
TEXTS = ("Hello", "Name three colours and say where you have seen each of them.", "What is the capital of France?")
GAMMAS = (None, 0.3, 3.0)


def main() -> None:
    """Ask every question with every strength, and write the answers down."""
    loaded = load_model("smolomni", dtype="float32")
    rows: list[dict[str, Any]] = []
    for gamma in GAMMAS:
        rows += [{"text": text, "gamma": gamma, **_answer(loaded, loaded.inputs(text), gamma)} for text in TEXTS]
        asked = [(question, loaded.inputs(question, video=CLIP)) for question in QUESTIONS]
        rows += [{"question": words, "gamma": gamma, **_answer(loaded, inputs, gamma)} for words, inputs in asked]
    OUT.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def _answer(loaded: Any, inputs: Any, gamma: float | None) -> dict[str, Any]:
    with nullcontext() if gamma is None else OutRo(gamma=gamma)(loaded.model), torch.no_grad():
        made = loaded.model.generate(
            **inputs, max_new_tokens=12, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    prompt = inputs["input_ids"][0].tolist()
    tokens = made.sequences[0, len(prompt) :].tolist()
    logs = [one[0].float().log_softmax(-1)[t].item() for one, t in zip(made.logits, tokens, strict=True)]
    return {
        "answer": loaded.tokenizer.decode(tokens, skip_special_tokens=True).strip(),
        "prompt_tokens": len(prompt),
        "logprobs": [round(x, 6) for x in logs],
    }


if __name__ == "__main__":
    main()
