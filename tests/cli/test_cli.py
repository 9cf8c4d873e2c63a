"""The command line as its users meet it: its two streams and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from omnisink import SinkMap, __version__
from omnisink.errors import OmnisinkError
from omnisink.verification.families import FAMILIES
from omnisink.verification.ports import ROWS
from tests.cli.command import refused, run, run_in_process

VERBS = ("demo", "ask", "find", "study", "eval", "compare", "tasks", "tune", "export", "models", "synthav", "doctor")
HEAVY = ("torch", "transformers", "numpy", "gguf", "huggingface_hub")


# --- help ---


def test_help_is_light_and_complete():
    code = (
        "import contextlib, io, json, sys; from omnisink.cli.app import main\n"
        f"for verb in {((), *((verb,) for verb in VERBS))!r}:\n"
        "    sys.argv = ['omnisink', *verb, '--help']\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):\n"
        "        main()\n"
        f"    print(json.dumps([out.getvalue(), [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(shown) == 1 + len(VERBS)
    for verb, (page, heavy) in zip(("omnisink", *VERBS), shown, strict=True):
        assert heavy == [], verb
        assert page.lstrip().startswith("Usage: omnisink" if verb == "omnisink" else f"Usage: omnisink {verb}")
    assert all(name in shown[0][0] for name in VERBS)


def test_help_appears_at_once():
    code = (
        "import sys, time; from omnisink.cli.app import main\n"
        "sys.argv = ['omnisink', 'ask', '--help']\n"
        "try: main()\n"
        "finally: print(time.process_time())"
    )
    taken = [
        float(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1]
        )
        for _ in range(3)
    ]
    # Seconds of the processor, which a busy machine stretches less than those of the clock; torch alone takes more.
    assert min(taken) < 0.6


def test_without_a_verb_the_help_is_shown():
    done = run()
    assert done.returncode == 0
    assert "Commands" in done.stdout


def test_version():
    assert run_in_process("--version").stdout == f"omnisink {__version__}\n"


def test_the_installed_command_is_the_same():
    script = Path(sys.executable).with_name("omnisink")
    if not script.exists():
        pytest.skip("the package is not installed in this environment")
    assert subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout == (
        f"omnisink {__version__}\n"
    )


# --- what is refused ---


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("nothing",), "No such command 'nothing'"),
        (("demo", "--nothing"), "No such option"),
        (("ask",), "Missing argument"),
        (("ask", "a.mp4", "what", "now?"), "got 3 arguments: put the question in quotation marks"),
        (("find",), "give either a file and a question, or a text with --text"),
        (("find", "clip.mp4"), "expected a file and a question in quotation marks, got 1"),
        (("synthav",), "--out"),
        (("synthav", "--out", "x", "--split", "dev"), "--split"),
        (("ask", "--model", "x", "why?", "--temperature", "0"), "--temperature must be a positive number"),
        (("ask", "--model", "x", "why?", "--gamma", "strong"), "--gamma"),
        (("ask", "--model", "x", " "), "the question is empty"),
        (("find", "--model", "x", "--text", "absent.txt"), "cannot read absent.txt"),
        (("find", "--model", "x", "--text", "."), "cannot read ."),
        (("find", "--model", "x", "--text", "-"), "standard input is empty"),
        (("find", "--model", "x", "--text", __file__, "--channels", "1,b"), "--channels takes whole numbers"),
        (("find", "--model", "x", "--text", __file__, "--out", "absent/map.json"), "cannot write absent/map.json"),
        (("find", "--model", "x", "--text", __file__, "--criterion", "loudest"), "--criterion"),
        (("models", "nobody"), "unknown family 'nobody'"),
        (("models", "--write", "page.md"), "--write goes with --verify"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, tuple) else "",
)
def test_what_the_user_can_put_right_is_one_line(args, says):
    assert says in refused(*args)


def test_a_refusal_is_one_line_of_the_process_too():
    done = run_in_process("ask", "--model", "nobody/nothing", "why?")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("omnisink: nobody/nothing is neither a folder nor in the local Hub cache")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (
            ("ask", "--model", "nobody/nothing", "why?"),
            "nobody/nothing is neither a folder nor in the local Hub cache",
        ),
        (("ask", "--model", "smollm2-135m", "why?", "--tau", "0"), "tau must be a positive number"),
        (("demo", "--gamma", "inf"), "gamma must be a finite number"),
        (("find", "--model", "smollm2-135m", "--text", __file__, "--criterion", "sink_dimension"), "sink channels"),
        (("ask", "--model", "smollm2-135m", "why?", "--device", "gpu"), "unknown device 'gpu'"),
        (("models", "--verify", "--write", "absent.md"), "cannot read absent.md"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, tuple) else "",
)
def test_settings_are_refused_before_a_model_is_loaded(args, says):
    assert says in refused(*args)


def test_a_model_without_attention_is_refused_by_name(tokenizer, tmp_path):
    FAMILIES["mamba"].build(attn_implementation="eager").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "Mamba" in refused("ask", "--model", str(tmp_path), "why?")


# --- ask and find, on a tiny checkpoint ---


def test_a_text_has_no_byte_order_mark_and_is_utf_8(tmp_path):
    from omnisink.cli.output import read_text

    file = tmp_path / "x.txt"
    file.write_bytes(b"\xef\xbb\xbfThe sea.\r\n")
    assert read_text(str(file)) == "The sea."
    for encoding in ("utf-16", "utf-16-le"):
        file.write_text("The sea.", encoding=encoding)
        with pytest.raises(OmnisinkError, match="it is not UTF-8 text"):
            read_text(str(file))


def test_ask_streams_the_answer_and_says_aside_what_it_did(llama_folder):
    done = run("ask", "--model", str(llama_folder), "hello", "--max-new-tokens", "5", "--gamma", "0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr.strip().startswith("sinks at layers 0-1; ")
    assert "tokens rotated at 2 layers; rows relaxed: 1" in done.stderr


def test_ask_json_holds_what_repeats_the_run(llama_folder):
    done = run_in_process(
        *("ask", "--model", str(llama_folder), "-", "--json", "--compare", "--max-new-tokens", "5", "--no-relax"),
        *("--temperature", "0.7", "--seed", "3"),
        stdin="hello\n",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["question"] == "hello"
    assert found["prompt_tokens"] == len("Whello:")
    assert found["generation"] == {"max_new_tokens": 5, "do_sample": True, "temperature": 0.7, "seed": 3}
    assert found["method"]["gamma"] == 3.0
    assert found["method"]["relax"] is False
    assert found["relaxed"] == []
    assert found["sinks"]["0"] == [{"position": 0, "token": "W"}]
    assert found["model"]["source"] == "local folder"
    assert isinstance(found["answer_without"], str)
    assert found["versions"]["omnisink"] == __version__


def test_find_writes_the_map_and_prints_the_table(llama_folder, tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "map.json"
    text.write_text("see World\n")
    done = run("find", "--model", str(llama_folder), "--text", str(text), "--out", str(out), "--layers", "0,3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:3] == ["0", "4", "'W'"]
    found = SinkMap.from_json(out.read_text())
    assert found.examined == [0, 3]
    assert found.positions(0) == [4]
    printed = run("find", "--model", str(llama_folder), "--text", "-", "--json", "--chat", stdin="x")
    assert SinkMap.from_json(printed.stdout).positions(0) == [0]
    assert "names [4]" in refused("find", "--model", str(llama_folder), "--text", str(text), "--layers", "4")


# --- models and doctor ---


def test_models_lists_every_family():
    listed = json.loads(run("models", "--json").stdout)
    assert [entry["name"] for entry in listed] == [*FAMILIES, *ROWS]
    shown = run("models").stdout
    assert all(name in shown for name in (*FAMILIES, *ROWS))


def test_models_verify_reports_and_succeeds():
    done = run("models", "--verify", "--json", "qwen2", "mamba")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [(r["name"], r["outcome"]) for r in results] == [("qwen2", "supported"), ("mamba", "refused")]


def test_models_verify_fails_where_a_promise_is_broken(monkeypatch, capsys):
    import typer

    from omnisink.cli import models

    monkeypatch.setitem(FAMILIES, "mamba", replace(FAMILIES["mamba"], expectation="supported"))
    monkeypatch.setattr(models, "quiet", lambda: None)  # it would silence the libraries for the tests that follow
    with pytest.raises(typer.Exit) as left:
        models.models(["mamba"], verify=True)
    assert left.value.exit_code == 1
    captured = capsys.readouterr()
    assert "refused!" in captured.out
    assert "mamba: refused, expected supported" in " ".join(captured.err.split())


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_weights_that_are_no_numbers_are_told(llama_folder, tmp_path, number):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float(number))
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(llama_folder).save_pretrained(tmp_path)
    for more in ((), ("--json",)):
        line = refused("ask", "w1 w2 w3", "--model", str(tmp_path), *more)
        assert "the residual stream is not finite" in line
        assert "model.embed_tokens.weight" in line
    line = refused("ask", "w1 w2 w3", "--model", str(tmp_path), "--compare", "--json")
    assert "the logits are not finite" in line
    assert "the residual stream is not finite" in refused("find", "--text", "-", "--model", str(tmp_path), stdin="w1")
