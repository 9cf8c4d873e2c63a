"""Serve a small omni model, ask it about a clip with and without OutRo, see the numbers move (`make serve-demo`)."""

from __future__ import annotations

import argparse
import base64
import tempfile
from pathlib import Path
from typing import Any

from omnisink.serving.health import check
from omnisink.serving.process import Server, serve

QUESTION = "What is in the picture?"
NAME = "smolomni"
#: Frames and sizes as SmolOmni was trained on. Requests may say that the sound of a video is to be heard.
OPTIONS = (
    "--served-model-name", NAME, "--dtype", "float32", "--enforce-eager",
    "--max-model-len", "2048", "--max-num-seqs", "8", "--kv-cache-memory-bytes", str(1 << 29),
    "--media-io-kwargs", '{"video": {"fps": 2, "num_frames": -1}}',
    "--mm-processor-kwargs", '{"size": {"shortest_edge": 12544, "longest_edge": 12544}}',
    "--trust-request-mm-kwargs",
)  # fmt: skip


def ask(client: Any, clip: Path, question: str, outro: Any = None, **options: Any) -> Any:
    """Ask about a clip with its sound, as any program with the openai client does.

    Parameters
    ----------
    client : OpenAI
        Client of the server.
    clip : Path
        A video.
    question : str
        Question to ask.
    outro : object, optional
        OutRo's settings in the request.
    **options
        More of the request's fields.

    Returns
    -------
    ChatCompletion
        The answer.
    """
    video = base64.b64encode(clip.read_bytes()).decode()
    content = [
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{video}"}},
        {"type": "text", "text": question},
    ]
    extra: dict[str, Any] = {"mm_processor_kwargs": {"use_audio_in_video": True}}
    if outro is not None:
        extra["outro"] = outro
    return client.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": content}], temperature=0, extra_body=extra, **options
    )


def show(server: Server, clip: Path) -> None:
    """Ask the question in three ways and print what comes, and how the numbers move."""
    from openai import OpenAI

    client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    print(f"\n{QUESTION}  ({clip.name}, with its sound)")
    for words, outro in (("without OutRo", False), ("with OutRo, gamma 0.3", None), ("with gamma 3", {"gamma": 3.0})):
        before = server.numbers()
        answer = ask(client, clip, QUESTION, outro, max_tokens=16, logprobs=True).choices[0]
        moved = {name: int(value - before[name]) for name, value in server.numbers().items()}
        first = answer.logprobs.content[0].logprob
        print(f"  {words:22} {answer.message.content!r}, log-probability of its first token {first:.4f}")
        print(f"  {'':22} rotated {moved['tokens_rotated']}, relaxed {moved['rows_relaxed']}")
    print("\nhealth:", check(server.url)[1])


def main() -> None:
    """Run the demonstration on a checkpoint of SmolOmni."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="SmolOmni, as omnisink.models.checkpoint writes it.")
    parser.add_argument("clip", type=Path, help="A video with sound.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("Starting vLLM with OutRo; about a minute.", flush=True)
        with serve(given.model, {"gamma": 0.3}, Path(folder) / "server.log", OPTIONS) as server:
            show(server, given.clip)
    print("The server has stopped.")


if __name__ == "__main__":
    main()
