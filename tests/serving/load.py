"""Many clients at once, some of whom leave or send nonsense; every answer is held against the offline one.

    python -m tests.serving.load --seconds 300

Run in the environment of `make test-serving`. The model is a tiny one with planted sinks, so that the load is on what
OutRo keeps for requests that come and go, not on matrix products.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.serving import planted
from tests.serving.planted import GAMMA, TOLERANCE, Answer

#: What requests say about OutRo, and the method that this is on transformers.
SAID: list[tuple[Any, dict[str, Any] | None]] = [
    (None, {"gamma": GAMMA}),
    (False, None),
    ({"gamma": 0.0}, None),
    ({"gamma": 0.4}, {"gamma": 0.4}),
    ({"relax": False}, {"gamma": GAMMA, "relax": False}),
    ('{"gamma": -0.5}', {"gamma": -0.5}),
]
#: Requests that are refused, with the status that says so.
NONSENSE: list[tuple[Any, int]] = [
    ({"outro": {"gamma": "much"}}, 400),
    ({"outro": {"gama": 1}}, 400),
    ({"outro": [1]}, 400),
    ({"outro": {"relax": 3}}, 400),
    ({"use_beam_search": True, "n": 2}, 400),
    ({"max_tokens": -1}, 400),
    ({"prompt": [1, "x"]}, 400),
    ({"model": "another"}, 404),
    ("{not json", 400),
]
COUNT = 24


@dataclass
class Case:
    """A request and the answer it must have."""

    prompt: list[int]
    said: Any
    wanted: Answer


@dataclass
class Outcome:
    """What the clients saw."""

    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    worst: float = 0.0
    memory: list[int] = field(default_factory=list)


def make_cases(model: Any) -> list[Case]:
    """Make prompts of many lengths under all settings, with their answers on transformers."""
    from omnisink.methods.outro import OutRo

    cases = []
    for i, ids in enumerate(planted.mixed_prompts() * 2):
        said, settings = SAID[(i + i // 16) % len(SAID)]
        method = None if settings is None else OutRo(**settings)
        cases.append(Case(ids, said, planted.reference(model, ids, COUNT, method)))
    return cases


def body_of(case: Case, count: int, **more: Any) -> dict[str, Any]:
    """Write a request for the server."""
    body = {
        "model": "tiny", "prompt": case.prompt, "max_tokens": count, "temperature": 0, "logprobs": 0,
        "ignore_eos": True, "return_tokens_as_token_ids": True, **more,
    }  # fmt: skip
    if isinstance(case.said, str):
        body["vllm_xargs"] = {"outro": case.said}
    elif case.said is not None:
        body["outro"] = case.said
    return body


def read_answer(choice: dict[str, Any]) -> Answer:
    """Read a completion with tokens as ids."""
    logs = choice["logprobs"]
    return Answer([int(token.removeprefix("token_id:")) for token in logs["tokens"]], logs["token_logprobs"])


async def run_load(url: str, cases: list[Case], seconds: float, clients: int, memory: Any = None) -> Outcome:
    """Load a server for so many seconds.

    Parameters
    ----------
    url : str
        The server.
    cases : list of Case
        What is asked.
    seconds : float
        How long.
    clients : int
        How many at once.
    memory : callable, optional
        Returns the bytes that the server holds; asked ten times.

    Returns
    -------
    Outcome
        What was seen.
    """
    import httpx

    outcome, end = Outcome(), time.monotonic() + seconds
    # Idle connections are let go of well before the server does so (5 s): a request could meet one that closes.
    limits = httpx.Limits(max_connections=2 * clients, keepalive_expiry=1)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def watch() -> None:
            while memory is not None and time.monotonic() < end:
                outcome.memory.append(memory())
                await asyncio.sleep(seconds / 10)

        async def one(seed: int) -> None:
            draw = random.Random(seed)
            while time.monotonic() < end:
                kind = draw.random()
                try:
                    if kind < 0.1:
                        await _leave(client, draw, cases, outcome)
                    elif kind < 0.2:
                        await _nonsense(client, draw, cases, outcome)
                    else:
                        await _ask(client, draw, cases, outcome)
                except httpx.HTTPError as error:
                    outcome.wrong.append(f"{type(error).__name__}: {error}")

        await asyncio.gather(watch(), *(one(seed) for seed in range(clients)))
    return outcome


async def _ask(client: Any, draw: random.Random, cases: list[Case], outcome: Outcome) -> None:
    case, count = draw.choice(cases), draw.randint(1, COUNT)
    answer = await client.post("/v1/completions", json=body_of(case, count))
    if answer.status_code != 200:
        outcome.wrong.append(f"{answer.status_code}: {answer.text[:200]}")
        return
    got = read_answer(answer.json()["choices"][0])
    outcome.seen["answered"] += 1
    far = max(abs(a - b) for a, b in zip(got.logprobs, case.wanted.logprobs, strict=False))
    outcome.worst = max(outcome.worst, far)
    if got.tokens != case.wanted.tokens[:count] or far > TOLERANCE:
        outcome.wrong.append(f"prompt of {len(case.prompt)}, {case.said}: {got.tokens}, off by {far:.1e}")


async def _leave(client: Any, draw: random.Random, cases: list[Case], outcome: Outcome) -> None:
    """Ask for a streamed answer and hang up after a few tokens."""
    body = body_of(draw.choice(cases), COUNT, stream=True)
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        left = draw.randint(0, 5)
        async for line in answer.aiter_lines():
            left -= line.startswith("data:")
            if left < 0:
                break
    outcome.seen["left"] += 1


async def _nonsense(client: Any, draw: random.Random, cases: list[Case], outcome: Outcome) -> None:
    said, status = draw.choice(NONSENSE)
    case = draw.choice([case for case in cases if not isinstance(case.said, str)])
    content = said if isinstance(said, str) else json.dumps(body_of(case, 4) | said)
    answer = await client.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
    outcome.seen["refused"] += 1
    if answer.status_code not in (status, 422 if status == 400 else status):
        outcome.wrong.append(f"{said}: {answer.status_code} {answer.text[:200]}")


def options() -> list[str]:
    """Options of a server for the tiny model."""
    return [
        "--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager", "--max-model-len", "256",
        "--max-num-seqs", "32", "--kv-cache-memory-bytes", str(1 << 28),
        "--disable-uvicorn-access-log",
    ]  # fmt: skip


def main() -> None:
    """Start a server, load it, and say what was seen."""
    from omnisink.serving.process import serve, stop
    from tests.serving.letters import tiny_with_tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=32)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_with_tokenizer(Path(folder) / "tiny")
        cases = make_cases(model)
        with serve(Path(folder) / "tiny", {"gamma": GAMMA}, Path(folder) / "log", options()) as server:
            asyncio.run(run_load(server.url, cases, 10, given.clients))  # Warm.
            outcome = asyncio.run(run_load(server.url, cases, given.seconds, given.clients, server.memory))
            numbers = server.numbers()
            killed = stop(server)
    print(json.dumps({
        "seconds": given.seconds, "clients": given.clients, **outcome.seen, "wrong": len(outcome.wrong),
        "largest difference": outcome.worst, "memory, MB": [round(m / 1e6) for m in outcome.memory],
        "processes killed at the end": killed, "numbers": numbers,
    }, indent=1))  # fmt: skip
    for line in outcome.wrong[:10]:
        print(line)


if __name__ == "__main__":
    main()
