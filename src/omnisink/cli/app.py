"""The entry point: its commands, and how errors are shown."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from omnisink import __version__
from omnisink.cli.ask import ask
from omnisink.cli.compare import compare
from omnisink.cli.demo import demo
from omnisink.cli.doctor import doctor
from omnisink.cli.eval import evaluate
from omnisink.cli.export import export
from omnisink.cli.find import find
from omnisink.cli.flags import PlainCommand, PlainGroup
from omnisink.cli.media import gather_choices
from omnisink.cli.methods import methods
from omnisink.cli.models import models
from omnisink.cli.next_steps import command_line
from omnisink.cli.study import study
from omnisink.cli.synthav import synthav
from omnisink.cli.tasks import tasks
from omnisink.cli.terminal import guard, visible
from omnisink.cli.tune import tune
from omnisink.errors import OmnisinkError

#: Exit status of what the user can put right: a bad option, a missing file, a model that is not there.
USER_ERROR = 2
INTERRUPTED = 130
#: PlainGroup that go on where they were stopped, when they are typed again.
_RESUMED = ("eval", "study", "tune")
#: What a full disk, or a broken one, says where the output goes.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

app = typer.Typer(
    name="omnisink",
    cls=PlainGroup,
    help="Find, explain and use attention sinks in language models. Nothing is downloaded unless you give --download.",
    epilog="The method OutRo is that of arXiv 2603.14337: https://arxiv.org/abs/2603.14337",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        print(f"omnisink {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


for command in (demo, ask, find, study):
    app.command(cls=PlainCommand)(command)
app.command("eval", cls=PlainCommand)(evaluate)
for tool in (compare, tune, export, methods, models, synthav, doctor):
    app.command(cls=PlainCommand)(tool)
app.add_typer(tasks)


def main() -> None:
    """Run the command line and leave with its exit status.

    0 is success, 2 an error of the user's in one line on stderr, 1 a check that failed or questions that could not be
    asked. Anything else is a fault of the program and keeps its traceback.
    """
    guard()
    try:
        status = app(gather_choices(sys.argv[1:]), standalone_mode=False)
        if status == INTERRUPTED:  # Newer versions of Typer make a status of the interruption.
            _stopped()
        sys.stdout.flush()
    except OmnisinkError as error:
        status = _complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _stopped()
        status = INTERRUPTED
    except BrokenPipeError:
        # The reader has left, as `head` does.
        _close_stdout()
        status = 0
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        _close_stdout()
        status = _complain(f"the output could not be written: {error.strerror}")
    except Exception as error:
        # Typer's own complaints about options; their classes have moved between its versions.
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        status = _complain(explain())
    sys.exit(status if isinstance(status, int) else 0)


def _stopped() -> None:
    """Say that the user has stopped it, and what goes on from there."""
    words = sys.argv[1:]
    kept = f"; what was done is kept. Go on with: {command_line(words)}" if words and words[0] in _RESUMED else ""
    print(f"\nomnisink: stopped{visible(kept)}", file=sys.stderr)


def _close_stdout() -> None:
    """Forget what is still to be written: Python would complain once more while it closes stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> int:
    line = visible(" ".join(message.split()))
    print(f"omnisink: {line}", file=sys.stderr)
    return USER_ERROR
