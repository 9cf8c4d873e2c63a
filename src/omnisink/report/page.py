"""The page: one HTML file that holds its style, its scripts and its data, and asks for nothing else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from omnisink.plotting.palette import DARK, LIGHT
from omnisink.report.export import csv_text, vega_lite_version
from omnisink.report.figure import Figure, Row
from omnisink.report.sections import Section
from omnisink.report.theme import config
from omnisink.report.words import bounded, head, shown
from omnisink.results.wording import NATS, PERCENT, interval, number, part_of

_HERE = Path(__file__).parent
#: Kinds of files that the page links of every chart, in the folder beside it.
LINKED = ("svg", "pdf", "png")
#: Rows of a table on the page; the CSV file has all.
MAX_ROWS = 100
#: Characters of a CSV file that the page carries along for download.
MAX_CSV = 64_000
#: Sentences at the head of a section; the others are a click away.
MAX_READINGS = 4


def render(results: Mapping[str, Any], sections: Sequence[Section], *, charts: bool) -> str:
    """Return the page.

    Parameters
    ----------
    results : mapping
        Cleaned results, for what was run.
    sections : sequence of Section
        Sections to show.
    charts : bool
        Whether the files of the charts stand beside the page.

    Returns
    -------
    str
        HTML with a Content-Security-Policy that lets nothing run but the page's own two scripts, by their hashes, and
        nothing be fetched.
    """
    run: Mapping[str, Any] = results["run"]
    return fill(
        "page.html.jinja",
        sections,
        charts,
        name=_mapping(run.get("model")).get("name") or "a model",
        version=_mapping(run.get("versions")).get("omnisink") or "",
        quick=bool(run.get("quick")),
        command=run.get("command"),
        summary=_summary(run),
        run_facts=_run_facts(run),
        baseline=_baseline(_mapping(results.get("baseline"))),
        bracketed=bounded([_mapping(results.get("baseline"))], "loss_low", "loss_high"),
        example=_example(_mapping(results.get("example"))),
    )


def fill(template: str, sections: Sequence[Section], charts: bool, **words: Any) -> str:
    """Fill a template with sections and what else it shows, and with the style and scripts that every page has.

    Parameters
    ----------
    template : str
        A file beside this one: ``page.html.jinja``, or one that extends it.
    sections : sequence of Section
        Sections to show.
    charts : bool
        See `render`.
    **words : Any
        Variables of the template; strings are escaped.

    Returns
    -------
    str
        HTML, as `render` returns it.
    """
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    scripts = [
        vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vega_lite_version()),
        (_HERE / "page.js").read_text("utf-8"),
    ]
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:;"
        f" script-src {' '.join(map(_hash, scripts))}; style-src {_hash(style)}"
    )
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "data_link": _data_link, "breakable": _breakable}
    return environment.get_template(template).render(
        **words,
        sections=sections,
        files=LINKED if charts else (),
        table=_table,
        max_rows=MAX_ROWS,
        max_readings=MAX_READINGS,
        # These three are the page's own; a closing tag inside them would end them early, and the bundle is checked.
        policy=policy,
        style=_inside("style", style),
        scripts=[_inside("script", script) for script in scripts],
        data=Markup(_json(_data(sections))),
    )


def _breakable(text: object) -> Markup:
    """Let a name break where its parts end, as after the colons of a method with settings."""
    return Markup(re.sub(r"([:,+=(])(?=\S)", r"\1<wbr>", str(escape(text))))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _inside(tag: str, text: str) -> Markup:
    """Return text that stands in an element as it is."""
    if f"</{tag}" in text.lower() or "<!--" in text:
        raise AssertionError(f"the page's own {tag} holds a tag that would end it")
    return Markup(text)


def _data(sections: Sequence[Section]) -> dict[str, Any]:
    """Return what the page's script draws; data that several charts share are written once."""
    figures = [figure for section in sections for figure in section.figures]
    return {
        "themes": {"light": config(LIGHT), "dark": config(DARK)},
        "datasets": {name: list(rows) for figure in figures for name, rows in figure.data.items()},
        "charts": [
            {
                "name": figure.name,
                "spec": figure.spec(),
                "datasets": list(figure.data),
                "narrow": figure.narrow_spec(),
                "narrowest": figure.narrowest,
                "panel": figure.panel,
                "beside": figure.beside,
                "renderer": "canvas" if figure.many_marks else "svg",
            }
            for figure in figures
        ],
    }


def _json(data: Any) -> str:
    """Write JSON that may stand in a script element whatever its strings are."""
    text = json.dumps(_short(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _short(value: Any) -> Any:
    """Round numbers to what a chart can show."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    return value


def _table(figure: Figure, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the heads of a figure's columns, whether they hold numbers, and the first of some rows, ready to read."""
    columns = [column for column in figure.columns if column.on_page]
    return {
        "heads": [(head(column, rows), bool(column.form)) for column in columns],
        "rows": [[(shown(row, column), bool(column.form)) for column in columns] for row in islice(rows, MAX_ROWS)],
    }


def _data_link(figure: Figure) -> str:
    """Return the CSV file as an address that holds it, or nothing where it is too long for the page."""
    if (len(figure.rows) + len(figure.folded)) * len(figure.columns) > MAX_CSV:
        return ""
    text = csv_text(figure).encode()
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text).decode()}" if len(text) <= MAX_CSV else ""


def _summary(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a reader wants to know first of what was run, as pairs to show."""
    model, data = _mapping(run.get("model")), _mapping(run.get("data"))
    seconds = run.get("seconds")
    minutes = None if seconds is None else f"{seconds / 60:,.0f} min" if seconds >= 120 else f"{seconds:,.0f} s"
    pairs = {
        "model": [model.get("name"), model.get("class"), model.get("revision")],
        "run in": [model.get("dtype"), model.get("device"), model.get("attention")],
        "data": [data.get("file"), _items(data)],
        "when": [_time(run.get("started")), minutes],
    }
    joined = {key: ", ".join(str(part) for part in parts if part not in (None, "")) for key, parts in pairs.items()}
    return [(key, text) for key, text in joined.items() if text]


def _items(data: Mapping[str, Any]) -> str | None:
    """Say how many items there were: "1 item", "60 of 120 items"."""
    used, items = data.get("used"), data.get("items")
    if used is None:
        return None
    share = part_of(used, items)
    return f"{share} item{'' if share == '1' else 's'}"


def _time(started: Any) -> str:
    """Write a time in ISO's form to the minute, in UTC; anything else as it is."""
    text = str(started or "")
    with contextlib.suppress(ValueError):
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return f"{time.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"
    return text


def _example(example: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the item that was looked at, as pairs to show; a letter is shown with the answer that it stands for."""
    choices = example.get("choices") or []
    letters = {chr(ord("A") + i): str(choice) for i, choice in enumerate(choices)} if isinstance(choices, list) else {}

    def answer(given: Any) -> Any:
        return given if given in letters.values() or given not in letters else f"{given}, {letters[given]}"

    pairs = {
        "item": example.get("item"),
        "question" if example.get("answer") else "text": example.get("question"),
        "choices": " / ".join(letters.values()) or choices,
        "right answer": answer(example.get("answer")),
        "model's answer": answer(example.get("said")),
    }
    return [(key, str(value)) for key, value in pairs.items() if value not in (None, "", [])]


def _run_facts(run: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what was run, under headings, as pairs to show."""
    time = {"started": run.get("started"), "seconds": run.get("seconds"), "seed": run.get("seed")}
    asked = {"questions": ", ".join(map(str, run.get("questions") or [])), "quick": run.get("quick")}
    groups = {name.capitalize(): _mapping(run.get(name)) for name in ("model", "data", "settings", "versions")}
    groups["Run"] = {key: value for key, value in (asked | time).items() if value not in (None, "")}
    return [(name, [(key, _fact(value)) for key, value in facts.items()]) for name, facts in groups.items() if facts]


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _fact(value: Any) -> str:
    return number(value) if not isinstance(value, list | dict) else json.dumps(value, ensure_ascii=False)


def _baseline(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the results of the baseline, as pairs to show."""
    pairs = [
        ("accuracy", interval(given.get("accuracy"), given.get("accuracy_low"), given.get("accuracy_high"), PERCENT)),
        ("loss (nats)", interval(given.get("loss"), given.get("loss_low"), given.get("loss_high"), NATS)),
        ("items", number(given.get("items"))),
    ]
    names = {"accuracy": "accuracy", "loss (nats)": "loss", "items": "items"}
    return [(name, text) for name, text in pairs if given.get(names[name]) is not None]
