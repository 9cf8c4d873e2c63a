"""The server over HTTP: requests with settings of their own, refusals, numbers, health, many clients, and its end."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from omnisink.methods.outro import OutRo
from omnisink.serving.health import check
from omnisink.serving.process import Server, serve, stop
from tests.serving import load
from tests.serving.letters import tiny_with_tokenizer
from tests.serving.planted import GAMMA, SINK, TOLERANCE, difference, mixed_prompts, reference
from tests.skips import needs

pytestmark = [needs("vllm"), needs("/proc"), pytest.mark.slow]

COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return tiny_with_tokenizer(folder / "tiny")


@pytest.fixture(scope="module")
def server(model: Any, folder: Path) -> Any:
    with serve(folder / "tiny", {"gamma": GAMMA}, folder / "log", load.options()) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    from openai import OpenAI

    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def post(server: Server, body: Any, path: str = "/v1/completions") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def complete(server: Server, ids: list[int], said: Any = None) -> Any:
    status, answer = post(server, load.body_of(load.Case(ids, said, None), COUNT))  # type: ignore[arg-type]
    assert status == 200, answer
    return load.read_answer(answer["choices"][0])


@pytest.mark.parametrize(("said", "settings"), load.SAID)
def test_a_request_changes_the_method_for_itself(server: Server, model: Any, said: Any, settings: Any) -> None:
    ids = mixed_prompts()[12]
    method = None if settings is None else OutRo(**settings)
    assert difference(complete(server, ids, said), reference(model, ids, COUNT, method)) < TOLERANCE


def test_numbers_move_as_the_trace_says(server: Server, model: Any) -> None:
    ids = mixed_prompts()[12]
    wanted = reference(model, ids, COUNT, OutRo(gamma=GAMMA))
    before = server.numbers()
    complete(server, ids)
    complete(server, ids, False)
    complete(server, mixed_prompts()[4])  # It has no sink.
    moved = {name: value - before[name] for name, value in server.numbers().items()}
    assert moved == {
        "requests": 3,
        "requests_with_sinks": 1,
        "tokens_rotated": wanted.rotated,
        "rows_relaxed": wanted.relaxed,
        "rows_not_relaxed": 0,
        "refusals": 0,
    }
    page = server.get("/metrics")
    assert "# TYPE omnisink_outro_tokens_rotated_total counter" in page
    assert "vllm:num_requests_running" in page


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"gamma": "much"}, "gamma must be a finite number, got 'much'"),
        ({"gama": 1}, "outro has no setting 'gama'; those it has: gamma, relax, decode"),
        ({"relax": 3}, "relax must be true or false, got 3"),
        (["gamma"], "outro must be an object"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_values_get_400_with_the_reason(server: Server, said: Any, why: str, stream: bool) -> None:
    refused = server.numbers()["refusals"]
    case = load.Case(mixed_prompts()[3], said, None)  # type: ignore[arg-type]
    status, answer = post(server, load.body_of(case, 4, stream=stream))
    assert status == 400
    assert why in answer["error"]["message"]
    assert answer["error"]["param"] == "outro"
    assert server.numbers()["refusals"] == refused + 1


def test_other_ways_to_be_wrong(server: Server) -> None:
    ids = mixed_prompts()[3]
    both = load.body_of(load.Case(ids, {"gamma": 1}, None), 4, vllm_xargs={"outro": "{}"})  # type: ignore[arg-type]
    status, answer = post(server, both)
    assert (status, "stands in the request twice" in answer["error"]["message"]) == (400, True)
    text = load.body_of(load.Case(ids, "{gamma", None), 4)  # type: ignore[arg-type]
    status, answer = post(server, text)
    assert (status, "outro is not JSON" in answer["error"]["message"]) == (400, True)
    beams = load.body_of(load.Case(ids, None, None), 4, use_beam_search=True, n=2)  # type: ignore[arg-type]
    status, answer = post(server, beams)
    assert (status, "beam search" in answer["error"]["message"]) == (400, True)
    status, answer = post(server, load.body_of(load.Case([SINK] * 300, None, None), 4))  # type: ignore[arg-type]
    assert (status, "256" in answer["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    "said",
    [
        '{"gamma": 1e308}', '{"gamma": -1e308}', '{"gamma": 1e38}', '{"gamma": -3.4e38}', '{"gamma": 1e999}',
        '{"gamma": 1' + "0" * 400 + "}", '{"gamma": "0.3"}', '{"gamma": true}', '{"gamma": [1]}',
        json.dumps("[" * 100_000), json.dumps('{"gamma": 1' + "0" * 5000 + "}"), json.dumps("x" * 10**6),
    ],
    ids=lambda said: said[:20],
)  # fmt: skip
def test_no_request_can_end_or_poison_the_server_for_others(server: Server, said: str) -> None:
    prompts = [mixed_prompts()[i] for i in (5, 9, 12)]
    before = [complete(server, ids, False) for ids in prompts]
    body = json.dumps(load.body_of(load.Case(prompts[2], None, None), COUNT)).rstrip("}")
    status, answer = post(server, f'{body}, "outro": {said}}}'.encode())
    assert status == 400, answer
    assert len(json.dumps(answer)) < 2000
    assert [complete(server, ids, False) for ids in prompts] == before
    assert server.process.poll() is None


def test_the_openai_client_sends_it_in_the_extra_body(client: Any) -> None:
    def ask(**extra: Any) -> list[float]:
        made = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "abc def"}],
            temperature=0,
            max_tokens=4,
            logprobs=True,
            extra_body={"ignore_eos": True, **extra},
        )
        return [one.logprob for one in made.choices[0].logprobs.content]

    alone, own, changed = ask(outro={"gamma": 0.0}), ask(), ask(outro={"gamma": 4.0})
    assert ask(outro=False) == alone
    assert ask(outro=True) == own
    assert ask(vllm_xargs={"outro": '{"gamma": 4.0}'}) == changed
    assert len({tuple(alone), tuple(own), tuple(changed)}) == 3
    from openai import BadRequestError

    with pytest.raises(BadRequestError, match="tau"):
        ask(outro={"tau": 1})


def test_the_health_check_sees_the_method(server: Server) -> None:
    well, words = check(server.url)
    assert well, words
    assert "OutRo is on" in words


def test_many_clients_some_of_whom_leave_or_send_nonsense(server: Server, model: Any) -> None:
    outcome = asyncio.run(load.run_load(server.url, load.make_cases(model), 20, 32))
    print(outcome.seen, f"largest difference {outcome.worst:.1e}")
    assert outcome.wrong == []
    assert min(outcome.seen[kind] for kind in ("answered", "left", "refused")) >= 10
    page = server.get("/metrics")
    running = [line for line in page.splitlines() if line.startswith("vllm:num_requests_running{")]
    assert [float(line.split()[-1]) for line in running] == [0.0]


def test_it_stops_when_it_is_asked_to(server: Server) -> None:
    assert stop(server) == 0
    assert server.process.returncode == 0


def test_a_server_without_the_method_is_found_out(model: Any, folder: Path) -> None:
    with serve(folder / "tiny", None, folder / "log-without", load.options()) as running:
        well, words = check(running.url)
        assert (well, "OutRo is not on it" in words) == (False, True)
        body = load.body_of(load.Case(mixed_prompts()[12], {"gamma": "much"}, None), COUNT)  # type: ignore[arg-type]
        status, answer = post(running, body)
        assert status == 200  # vLLM ignores what it does not know.
        wanted = reference(model, mixed_prompts()[12], COUNT)
        assert difference(load.read_answer(answer["choices"][0]), wanted) < TOLERANCE
    assert check(running.url, timeout=2)[0] is False
