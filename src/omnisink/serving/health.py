"""Ask a running server whether OutRo is on and does what it should.

    python -m omnisink.serving.health http://127.0.0.1:8000

A known prompt is completed three times: as the server is set, with the method switched off, and as it is set again.
The first and the last must agree, the numbers on `/metrics` must move by what was asked, and where a sink was found
the second must differ. Ends with status 0 if all is well and 1 if it is not, as a probe wants it.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from typing import Any

from omnisink.serving.process import read_numbers

#: Most models make a sink of its first token.
PROMPT = "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy"
_TOKENS = 4
_TOLERANCE = 1e-3


def check(url: str, timeout: float = 60.0) -> tuple[bool, str]:
    """Check a server.

    Parameters
    ----------
    url : str
        Its address.
    timeout : float
        Seconds for each of the requests.

    Returns
    -------
    tuple of bool and str
        Whether it is well, and one sentence that says what was seen.
    """
    url = url.rstrip("/")
    try:
        model = json.loads(_open(url + "/v1/models", timeout))["data"][0]["id"]
        before = read_numbers(_open(url + "/metrics", timeout))
        if not before:
            return False, "the server answers, and OutRo is not on it: /metrics has none of its numbers"
        first, off, again = (_complete(url, model, said, timeout) for said in (None, False, None))
        after = read_numbers(_open(url + "/metrics", timeout))
    except (OSError, ValueError, KeyError, IndexError) as error:
        return False, f"the server does not answer as it should: {error}"
    if _far(first, again):
        return False, f"the same prompt had two answers: {first} and {again}"
    moved = {name: after[name] - before[name] for name in after}
    if moved["requests"] < 3:
        return False, f"three requests were answered, and {moved['requests']:.0f} counted: workers are out of reach"
    if moved["requests_with_sinks"] == 0:
        return True, "OutRo is on; the known prompt has no sink in this model, so nothing was to be seen of it"
    if not _far(first, off):
        return False, "a sink was found, and the answer is that of the model without OutRo"
    return True, f"OutRo is on: {moved['tokens_rotated']:.0f} tokens rotated, {moved['rows_relaxed']:.0f} rows relaxed"


def _complete(url: str, model: str, outro: Any, timeout: float) -> list[tuple[str, float]]:
    """Complete the known prompt and return the tokens with their log-probabilities."""
    body: dict[str, Any] = {
        "model": model, "prompt": PROMPT, "max_tokens": _TOKENS, "temperature": 0, "logprobs": 0, "ignore_eos": True
    }  # fmt: skip
    if outro is not None:
        body["outro"] = outro
    logs = json.loads(_open(url + "/v1/completions", timeout, body))["choices"][0]["logprobs"]
    return list(zip(logs["tokens"], logs["token_logprobs"], strict=True))


def _far(one: list[tuple[str, float]], other: list[tuple[str, float]]) -> bool:
    return any(a[0] != b[0] or abs(a[1] - b[1]) > _TOLERANCE for a, b in zip(one, other, strict=True))


def _open(url: str, timeout: float, body: Any = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            text: str = answer.read().decode()
    except urllib.error.HTTPError as error:
        raise ValueError(f"{url}: {error.code} {error.read().decode(errors='replace')[:300]}") from None
    return text


def main() -> None:
    """Check the server that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000")
    parser.add_argument("--timeout", type=float, default=60.0, help="Seconds for each request.")
    given = parser.parse_args()
    well, words = check(given.url, given.timeout)
    print(words, file=sys.stdout if well else sys.stderr)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
