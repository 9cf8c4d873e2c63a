"""Chat templates are programs of the checkpoint: what they may take, and which of them need watching.

Jinja's sandbox keeps a template from the machine, and not from its time and memory: loops in loops and
``'a' * 3000000000`` are allowed. Most templates cannot do harm by their form: they walk once through the messages and
write what is there. `is_plain` recognises these, and they are run as usual. All others are run in a child process with
limits.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError, nodes

from omnisink.errors import OmnisinkError

#: What a template may take: seconds of the processor and of the clock, bytes of memory, and characters of its prompt.
SECONDS, WALL, MEMORY, CHARACTERS = 3, 20, 2**30, 50_000_000
#: Filters and methods whose result is no longer than what they are given, and those that make it longer by a constant.
_SHORT = {
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "endswith", "escape", "first", "float", "get"),
    *(
        "int",
        "items",
        "keys",
        "last",
        "length",
        "list",
        "lower",
        "lstrip",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
    ),
    *("reverse", "rsplit", "rstrip", "safe", "select", "selectattr", "sort", "split", "startswith", "string", "strip"),
    *("title", "trim", "unique", "upper", "values"),
}
_LONGER = {"join", "replace", "tojson"}
_FUNCTIONS = {"dict", "namespace", "raise_exception"}
#: What Jinja and transformers give to every template. A name of these, or of a macro, that is not called at once could
#: be called by another name later.
_GLOBALS = _FUNCTIONS | {"cycler", "joiner", "lipsum", "range", "self", "strftime_now"}
#: Statements and operations that only templates under limits may have.
_WATCHED = (
    *(nodes.Mul, nodes.Pow, nodes.AssignBlock, nodes.CallBlock, nodes.FilterBlock, nodes.Include, nodes.Extends),
    *(nodes.Import, nodes.FromImport, nodes.Block),
)
_LARGE = 1000


@lru_cache(maxsize=64)
def is_plain(template: str) -> bool:
    """Tell whether a template takes time and memory in proportion to the messages, whatever they are.

    Parameters
    ----------
    template : str
        Its source.

    Returns
    -------
    bool
        True only for templates of a form that is known to be harmless; False does not prove harm.
    """
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except (TemplateError, RecursionError):
        return False
    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    assigned = {name for node in tree.find_all(nodes.Assign) for name in _targets(node.target)}
    return (
        not any(tree.find_all(_WATCHED))
        and not any(isinstance(n.value, int | float) and abs(n.value) > _LARGE for n in tree.find_all(nodes.Const))
        and all(_plain_call(call, macros) for call in tree.find_all(nodes.Call))
        and _called_at_once(tree, macros | _GLOBALS)
        and all(_plain_filter(one) for one in tree.find_all(nodes.Filter))
        and all(_counts(node) for node in tree.find_all(nodes.Mod))
        and all(_plain_assign(node, assigned, macros) for node in tree.find_all(nodes.Assign))
        and not any(_calls(macro, macros) for macro in tree.find_all(nodes.Macro))
        and _plain_loops(tree, None, macros)
    )


def write_limited(work: Callable[[], str], name: str) -> str:
    """Do work in a child process that ends when it takes too much.

    Parameters
    ----------
    work : callable
        Returns the prompt.
    name : str
        Name of the model, for messages.

    Returns
    -------
    str
        Text that the work returned.

    Raises
    ------
    OmnisinkError
        With what the work raised, or that it took too much.
    """
    if not hasattr(os, "fork"):
        raise OmnisinkError(f"the chat template of {name} is not plain, and cannot be run under limits on this system")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Of threads; the child runs only the template.
        child = os.fork()
    if child == 0:
        _in_child(work, writing)
    os.close(writing)
    try:
        reply = json.loads(_read(reading) or "{}")
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if "text" in reply:
        return str(reply["text"])
    raise OmnisinkError(
        reply.get("error") or f"it takes more than {SECONDS} s or {MEMORY // 2**20} MiB, and was stopped"
    )


def _in_child(work: Callable[[], str], writing: int) -> None:
    """Set limits, work, report to the parent, and exit without running the parent's exit handlers."""
    reply: dict[str, str] = {}
    try:
        _limit()
        text = work()
        reply = {"text": text} if len(text) <= CHARACTERS else {"error": f"it writes {len(text):,} characters"}
    except MemoryError:
        reply = {}
    except BaseException as error:
        reply = {"error": " ".join(str(error)[:1000].split()) or type(error).__name__}
    finally:
        try:
            with os.fdopen(writing, "w") as file:
                json.dump(reply, file)
        finally:
            os._exit(0)


def _limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sizes = Path("/proc/self/statm")
    if sizes.exists():  # Elsewhere the limit of memory is not kept by the system anyway.
        now = int(sizes.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


def _read(reading: int) -> str:
    """Read what the child says until it has said all, or its time is over."""
    end, pieces = time.monotonic() + WALL, list[bytes]()
    while (left := end - time.monotonic()) > 0 and select.select([reading], [], [], left)[0]:
        piece = os.read(reading, 1 << 20)
        if not piece:
            return b"".join(pieces).decode()
        pieces.append(piece)
    return ""


def _targets(target: nodes.Node) -> list[str]:
    return [str(name.name) for name in [target, *target.find_all((nodes.Name, nodes.NSRef))] if hasattr(name, "name")]


def _plain_call(call: nodes.Call, macros: set[str]) -> bool:
    called: Any = call.node
    if isinstance(called, nodes.Name):
        # A time is written by a pattern, which may ask for a width.
        time_of = called.name == "strftime_now" and all(
            isinstance(a, nodes.Const) and not any(map(str.isdigit, str(a.value))) for a in call.args
        )
        return time_of or called.name in _FUNCTIONS | macros
    return isinstance(called, nodes.Getattr) and (called.attr in _SHORT or _by_constants(called.attr, call))


def _called_at_once(tree: nodes.Template, names: set[str]) -> bool:
    used = sum(name.name in names for name in tree.find_all(nodes.Name))
    return used == sum(isinstance(c.node, nodes.Name) and c.node.name in names for c in tree.find_all(nodes.Call))


def _plain_filter(one: nodes.Filter) -> bool:
    if one.name == "map":
        return not one.dyn_args and all(isinstance(a, nodes.Const) and a.value in _SHORT for a in one.args)
    return one.name in _SHORT or _by_constants(one.name, one)


def _by_constants(name: str, of: nodes.Call | nodes.Filter) -> bool:
    """Whether an operation makes a text longer by a small factor that the template states."""
    given = [*of.args, *(pair.value for pair in of.kwargs)]
    known = all(isinstance(a, nodes.Const) and len(str(a.value)) < _LARGE for a in given)
    return name in _LONGER and known and not of.dyn_args and not of.dyn_kwargs


def _counts(node: nodes.Expr) -> bool:
    """Tell a remainder of numbers from the formatting of a text, which may ask for any width."""
    if isinstance(node, nodes.Mod | nodes.Add | nodes.Sub):
        return _counts(node.left) and _counts(node.right)
    if isinstance(node, nodes.Const):
        return isinstance(node.value, int | float)
    if isinstance(node, nodes.Filter):
        return node.name in ("length", "count")
    return isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name == "loop"


def _plain_assign(node: nodes.Assign, assigned: set[str], macros: set[str]) -> bool:
    """Refuse what could make a text grow by a factor every time: twice itself, or itself made longer."""
    value = node.node
    names = [n for n in [value, *value.find_all(nodes.Name)] if isinstance(n, nodes.Name) and n.name in assigned]
    if not names:
        return True
    whole = [value, *value.find_all((nodes.Call, nodes.Dict, nodes.Filter, nodes.List, nodes.Tuple))]
    # A list is written with its texts in quotation marks, and those in it doubled.
    growing = any(
        isinstance(one, nodes.Dict | nodes.List | nodes.Tuple)
        or (isinstance(one, nodes.Filter) and one.name in _LONGER | {"list", "string"})
        or (isinstance(one, nodes.Call) and getattr(one.node, "attr", None) in _LONGER)
        or (isinstance(one, nodes.Call) and getattr(one.node, "name", None) in _FUNCTIONS | macros)
        for one in whole
    )
    return len(names) == 1 and not growing


def _calls(node: nodes.Node, macros: set[str]) -> bool:
    return any(isinstance(c.node, nodes.Name) and c.node.name in macros for c in node.find_all(nodes.Call))


def _plain_loops(node: nodes.Node, around: nodes.For | None, macros: set[str]) -> bool:
    """See to it that a loop in a loop goes through what the outer one has taken out, so that nothing is seen twice."""
    for child in node.iter_child_nodes():
        if isinstance(child, nodes.For):
            if child.recursive or (around is not None and _root(child.iter) not in _targets(around.target)):
                return False
            # A macro has loops of its own, over what it is given: that is fine once for each message.
            if _calls(child, macros) and (around is not None or _root(child.iter, deep=False) is None):
                return False
        if not _plain_loops(child, child if isinstance(child, nodes.For) else around, macros):
            return False
    return True


def _root(node: nodes.Node, deep: bool = True) -> str | None:
    """Return the name at the root of ``message.content[1:]|reverse``; not `deep`, only of the name and its slices."""
    if isinstance(node, nodes.Name):
        return str(node.name)
    if isinstance(node, nodes.Filter) and node.node is not None:
        return _root(node.node, deep)
    if isinstance(node, nodes.Getitem) and (deep or isinstance(node.arg, nodes.Slice)):
        return _root(node.node, deep)
    if isinstance(node, nodes.Getattr) and deep:
        return _root(node.node, deep)
    if isinstance(node, nodes.Call) and deep:
        return _root(node.node, deep)
    return None
