"""The ported models, each with a tiny checkpoint that the verification makes, loads and asks.

The entries of a port are in a file of its name, in a tuple `ROWS`; `PORTED` lists the files.
"""

from __future__ import annotations

from omnisink.verification.outside.checkpoints import ROWS as OUTSIDE_ROWS
from omnisink.verification.ports import imagebind_llm, video_llama2, video_salmonn2
from omnisink.verification.ports.row import PortedModel

#: Every ported model by name.
PORTED: dict[str, PortedModel] = {
    row.name: row for row in (*video_llama2.ROWS, *video_salmonn2.ROWS, *imagebind_llm.ROWS)
}
#: Stand-ins for models that are run with code of their own.
OUTSIDE: dict[str, PortedModel] = {row.name: row for row in OUTSIDE_ROWS}
#: All that have a row in the table.
ROWS: dict[str, PortedModel] = {**PORTED, **OUTSIDE}
