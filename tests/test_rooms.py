"""The layout of the repository: imports run downward, files stay small, nothing in them belongs to one machine."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "omnisink"
MAX_LINES = 350

#: A room may import from rooms with a smaller number, and from itself; rooms with the same number are strangers.
FLOORS = {
    "cli": 6,
    "integrations": 5,
    "report": 5,
    "study": 4,
    "evaluation": 4,
    "verification": 4,
    "methods": 3,
    "models": 2,
    "serving": 1,
    "synthav": 1,
    "questions": 1,
    "media": 0,
    "decoder": 0,
    "results": 0,
    "plotting": 0,
    "maths": 0,
    "kernels": -1,
}
#: The same inside `evaluation`; what lies beside these may import from all of them.
EVALUATION = ["tasks", "running", "comparing", "tuning"]
#: Rooms that import less than their floor allows: nothing but what is named.
ALONE = {"serving": {"serving", "maths"}}
#: Rooms that others do not import from, but for what is named: `maths` chooses where the kernels run.
HIDDEN = {"kernels": {"kernels", "maths"}}
#: Importable from everywhere.
COMMON = {"omnisink.errors", "omnisink.extras"}
#: What makes `omnisink --help` slow. Rooms that show help must not import it while they are imported.
HEAVY = {"torch", "transformers", "numpy", "accelerate", "gguf", "torchvision", "huggingface_hub"}

# Written in pieces, so that this file does not match itself.
MACHINE_PATH = re.compile(
    r"(?<![\w.~}$/-])/(?:" + "|".join(["work", "home", "root", "opt", "Users", "tmp", "mnt"]) + r")/\w"
)
REGISTRY_HOST = re.compile(
    "|".join([r"pypi\.(?:org|io)", r"python" + r"hosted\.org", r"npm" + r"js\.(?:org|com)", r"deb\.deb" + "ian"])
)


def sources() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py"))


def own_files() -> list[Path]:
    """Files that are tracked or would be, as git lists them."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return sorted(ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every module a file imports, wherever the import stands, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names if module == "omnisink")


def room_of(path: Path) -> str | None:
    inside = path.relative_to(PACKAGE).parts
    return inside[0] if len(inside) > 1 else None


def test_imports_run_downward() -> None:
    wrong = []
    for path in sources():
        room, where = room_of(path), path.relative_to(PACKAGE)
        if room is None:  # The package itself names the rooms lazily.
            continue
        for line, module in imports(path):
            if not module.startswith("omnisink.") or module in COMMON or module == "omnisink.__version__":
                continue
            target = module.split(".")[1]
            if target not in FLOORS:
                wrong.append(f"{where}:{line} imports {module}: import from the room that defines the name")
                continue
            allowed = target == room or FLOORS[target] < FLOORS[room]
            allowed &= target in ALONE.get(room, FLOORS) and (target not in ALONE or room in (target, "cli"))
            allowed &= room in HIDDEN.get(target, {room})
            if not allowed:
                wrong.append(f"{where}:{line}: {room} may not import {module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", EVALUATION)
def test_imports_run_downward_inside_evaluation(name: str) -> None:
    for path in (PACKAGE / "evaluation" / name).rglob("*.py"):
        for line, module in imports(path):
            if module.startswith("omnisink.evaluation."):
                target = module.split(".")[2]
                assert target in EVALUATION[: EVALUATION.index(name) + 1], f"{path.name}:{line} imports {module}"


def test_every_room_has_a_floor() -> None:
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert rooms <= FLOORS.keys()


#: Folders of tests that are no room: what they try is elsewhere, or they have to be run apart.
APART = {
    "benchmarks": "of benchmarks/, beside the package",
    "training": "of training/, beside the package",
    "kernels/interpreted": "of kernels/, in processes with Triton's interpreter",
}
#: Tests of the repository as a whole.
OF_ALL = {"test_documentation.py", "test_extras.py", "test_notebooks.py", "test_package.py", "test_rooms.py"}


def test_tests_stand_in_the_folder_of_their_room() -> None:
    tests = ROOT / "tests"
    folders = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")} - {"."}
    assert [folder for folder in sorted(folders - APART.keys()) if not (PACKAGE / folder).is_dir()] == []
    assert APART.keys() <= folders
    assert {path.name for path in tests.glob("test_*.py")} == OF_ALL
    empty = [path.name for path in tests.rglob("test_*.py") if "def test_" not in path.read_text(encoding="utf-8")]
    assert empty == []


def test_no_circle_of_imports() -> None:
    """Imports inside functions count too: a circle that is put off is a circle. Those for types alone do not."""
    modules = {".".join(("omnisink", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in sources()}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}

    class Imports(ast.NodeVisitor):
        def __init__(self) -> None:
            self.found: set[str] = set()

        def visit_If(self, node: ast.If) -> None:
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                self.generic_visit(node)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                self.found.add(whole if whole in modules else str(node.module))

    graph = {}
    for name, path in modules.items():
        visitor = Imports()
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        graph[name] = sorted(visitor.found & modules.keys() - {name})
    circle: list[str] = []
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert not circle, " -> ".join(circle)


def test_maths_uses_torch_alone() -> None:
    allowed = {"torch", "omnisink", "__future__", "collections", "math", "typing", "dataclasses", "functools"}
    allowed |= {"importlib", "os", "warnings"}  # To choose between its own functions and the kernels.
    for path in (PACKAGE / "maths").glob("*.py"):
        for line, module in imports(path):
            assert module.split(".")[0] in allowed, f"{path.name}:{line} imports {module}"


def test_triton_is_imported_by_the_kernels_alone() -> None:
    for path in sources():
        if room_of(path) != "kernels":
            assert not any(module.split(".")[0] == "triton" for _, module in imports(path)), path.name
        if room_of(path) == "maths":  # Where it is not used, it need not be there.
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                module = node.module if isinstance(node, ast.ImportFrom) else None
                assert not (module or "").startswith("omnisink.kernels"), f"{path.name}:{node.lineno}"


def test_the_command_line_imports_nothing_heavy_at_the_top() -> None:
    for path in [*(PACKAGE / "cli").glob("*.py"), PACKAGE / "__init__.py", PACKAGE / "errors.py"]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & HEAVY, f"{path.name}:{node.lineno}"


def test_files_stay_small() -> None:
    long = {}
    for path in own_files():
        if path.suffix == ".py":
            count = len(path.read_text(encoding="utf-8").splitlines())
            if count > MAX_LINES:
                long[str(path.relative_to(ROOT))] = count
    assert not long


def test_the_documentation_stays_small() -> None:
    """Records that a command writes again are not kept: docs/studies/index.md and docs/results/index.md name it.

    Of the whole, 4.2 MB are the three pages that open without a network, each with 0.9 MB of Vega, and 1.4 MB are the
    numbers of five studies.
    """
    size = sum(path.stat().st_size for path in own_files() if path.is_relative_to(ROOT / "docs"))
    assert size < 7_500_000


def test_nothing_belongs_to_one_machine() -> None:
    found = []
    for path in own_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line) or REGISTRY_HOST.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found
