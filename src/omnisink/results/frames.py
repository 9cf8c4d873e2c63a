"""Results as tables of pandas, which is imported when one is asked for; and as short HTML for a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from omnisink.errors import OmnisinkError

if TYPE_CHECKING:
    import pandas as pd

#: Rows of a table in a notebook; of more, the first are shown.
_ROWS = 40


def data_frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Make a table of columns of one length.

    Parameters
    ----------
    columns : mapping of str to sequence
        By name.

    Returns
    -------
    DataFrame
        With a running index.

    Raises
    ------
    OmnisinkError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise OmnisinkError(
            f"to_dataframe() needs pandas, which cannot be imported ({error}). Install with: pip install pandas"
        ) from error
    return pd.DataFrame(dict(columns))


def html_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a title and a small table for a notebook. Texts are shown as they are, whatever they hold.

    Parameters
    ----------
    title : str
        What the table is about.
    heads : sequence of str
        Heads of the columns.
    rows : sequence of sequences
        Cells; after the first forty rows, how many are left out.

    Returns
    -------
    str
        HTML without styles, scripts and links.
    """
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows[:_ROWS])
    if len(rows) > _ROWS:
        body += f'<tr><td colspan="{len(heads)}">and {len(rows) - _ROWS:,d} more</td></tr>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    return f"<div><p><strong>{escape(title)}</strong></p>{table}</div>"
