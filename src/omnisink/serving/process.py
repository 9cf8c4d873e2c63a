"""A server as a process of its own, for the demonstration, the benchmark and the tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnisink.errors import OmnisinkError

#: Seconds that a server may take to start, and to stop before it is killed.
START, STOP = 600.0, 30.0
_METRIC = "omnisink_outro_"


@dataclass
class Server:
    """A running server.

    Attributes
    ----------
    url : str
        ``http://127.0.0.1:PORT``.
    process : Popen
        Its first process, which leads a session of its own.
    log : Path
        File for its output.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> str:
        """Return the text of a page of the server."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def numbers(self) -> dict[str, float]:
        """Return OutRo's numbers on `/metrics`, without their prefix."""
        return read_numbers(self.get("/metrics"))

    def memory(self) -> int:
        """Bytes that the processes of the server hold (Linux only)."""
        return sum(_resident(pid) for pid in _session(self.process.pid))


def read_numbers(page: str) -> dict[str, float]:
    """Return OutRo's numbers of a page of metrics by name, as ``{"requests": 3.0}``."""
    lines = (line.split() for line in page.splitlines() if line.startswith(_METRIC))
    return {name.removeprefix(_METRIC).removesuffix("_total"): float(value) for name, value in lines}


@contextmanager
def serve(
    model: str | Path, outro: dict[str, Any] | None, log: Path, options: Sequence[str] = (), port: int | None = None
) -> Iterator[Server]:
    """Start vLLM's server on this machine, wait until it answers, and stop it in the end.

    Parameters
    ----------
    model : str or Path
        Model to serve.
    outro : dict, optional
        OutRo's settings; None for vLLM without OutRo.
    log : Path
        File for its output.
    options : sequence of str
        More of vLLM's options.
    port : int, optional
        A free one is taken where none is given.

    Yields
    ------
    Server
        Running.

    Raises
    ------
    OmnisinkError
        If it ends before it answers, or does not answer in time.
    """
    port = _free_port() if port is None else port
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), *options]
    if outro is not None:
        command += ["--additional-config", json.dumps({"outro": outro})]
    environment = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **os.environ}
    with open(log, "wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait(server)
        yield server
    finally:
        stop(server)


def stop(server: Server) -> int:
    """Ask a server to stop, as a supervisor does, and wait for it; kill what is left after a while.

    Returns
    -------
    int
        Number of its processes that had to be killed.
    """
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(STOP)
    deadline = time.monotonic() + 5
    while _session(server.process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = _session(server.process.pid)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait()
    return len(left)


def _wait(server: Server) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise OmnisinkError(f"the server ended with status {server.process.returncode}: {_last_error(server.log)}")
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            server.get("/health")
            return
        time.sleep(0.5)
    raise OmnisinkError(f"the server did not answer within {START:.0f} s; the last it said: {_last_error(server.log)}")


def _last_error(log: Path) -> str:
    """Return the last line that names an error."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    errors = [line for line in lines if "Error" in line]
    return next(iter(reversed(errors or lines)), "it wrote nothing")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _session(leader: int) -> list[int]:
    """Return the processes of a session that are alive (Linux only; elsewhere none)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
