"""Run lm-evaluation-harness with our model: ``python -m omnisink.integrations.lm_eval --model omnisink ...``."""

from __future__ import annotations

import sys

from omnisink.errors import OmnisinkError, reason
from omnisink.integrations.lm_eval import register


def main() -> int:
    """Register the model and hand the command line to the harness.

    Returns
    -------
    int
        Status of the command: 1 where omnisink refused something, which is said in one line.
    """
    try:
        register()
        from lm_eval.__main__ import cli_evaluate

        cli_evaluate()
    except OmnisinkError as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
