"""A run as files that other tools read: lmms-eval's samples, and a dataset of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from omnisink.errors import OmnisinkError, shown
from omnisink.evaluation.running.parts import read_parts
from omnisink.evaluation.tasks.instance import Instance
from omnisink.evaluation.tasks.metrics import measure
from omnisink.extras import install
from omnisink.results.checking import fields_of, typed
from omnisink.results.disk import atomic_write, os_errors_named
from omnisink.results.markup import plain_markdown
from omnisink.results.records import MANIFEST, read_manifest
from omnisink.results.schema import EvaluationManifest, EvaluationRecord
from omnisink.results.wording import number

#: Names that stand for devices on Windows, whatever follows a dot.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
#: Bytes of a name, so that with what is put before and after it any file system takes it.
_LONGEST = 100
#: Fields of a record that are not columns: a file holds one method, and groups are a column for every kind.
_NO_COLUMNS = ("method", "groups")


def _arrow(form: Any) -> str:
    """Return the type in Arrow of a field: the widest of what it may be."""
    options = {get_args(o)[0] if get_origin(o) is Annotated else o for o in get_args(form) or (form,)}
    if get_origin(form) is Annotated:
        options = {get_args(form)[0]}
    return next(name for kind, name in {str: "string", float: "float64", int: "int64"}.items() if kind in options)


#: Columns of the dataset and their types in Arrow. A field of a record that is not here is not exported.
_COLUMNS = {name: _arrow(form) for name, form in fields_of(EvaluationRecord).items() if name not in _NO_COLUMNS}


def export_lmms(run: str | Path, out: str | Path, instances: Sequence[Instance] | None = None) -> list[Path]:
    """Write a run as lmms-eval 0.7.3 writes its samples, one folder a method.

    Parameters
    ----------
    run : str or Path
        Folder of a run.
    out : str or Path
        Where ``<method>/<date>_samples_<task>.jsonl`` and ``<method>/<date>_results.json`` are written.
    instances : sequence of Instance, optional
        The task's questions. With them `doc_id` is a question's place in the annotations, as in lmms-eval, and `input`
        its text; without them questions are numbered in the order of their ids, and `input` is empty.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    OmnisinkError
        If the folder holds no run or nothing was answered, an id is not among the instances, or a file cannot be
        written.

    Notes
    -----
    As in lmms-eval, `resps` is left out where it is what `filtered_resps` is, which is always so here. A question that
    ended in an error has no sample: the format has no word for it, and an empty answer would count as wrong.
    """
    manifest, methods = _read(run)
    ids = [i.id for i in instances] if instances is not None else sorted({i for m in methods.values() for i in m})
    places = {name: place for place, name in enumerate(ids)}
    texts = {i.id: i.text for i in instances or ()}
    task, date = str(manifest["task"]["name"]), _date(manifest)
    stem = _slug(re.sub(r"\W", "_", Path(task).stem) or "task")
    written = []
    for folder, (method, records) in zip(_slugs(methods), methods.items(), strict=True):
        if unknown := next((name for name in records if name not in places), None):
            raise OmnisinkError(f"{run} has an answer to {unknown}, which is not one of the task's questions")
        answered = [record for record in records.values() if record["error"] is None]
        samples = [
            _sample(stem, places[r["id"]], texts.get(r["id"], ""), r)
            for r in sorted(answered, key=lambda r: places[r["id"]])
        ]
        target = Path(out) / folder
        written.append(_write(target / f"{date}_samples_{stem}.jsonl", "".join(_line(s) for s in samples)))
        results = _results(manifest, method, stem, list(records.values()))
        written.append(_write(target / f"{date}_results.json", json.dumps(results, indent=4, ensure_ascii=False)))
    return written


def export_parquet(run: str | Path, out: str | Path) -> list[Path]:
    """Write a run as a dataset of the Hugging Face Hub: a card, and one Parquet file a method.

    Parameters
    ----------
    run : str or Path
        Folder of a run.
    out : str or Path
        Where ``README.md``, ``manifest.json`` and ``data/<method>-00000-of-00001.parquet`` are written. ``datasets``
        reads it as it lies, with a method as the name of the configuration; so does the Hub once it is uploaded.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    OmnisinkError
        If the folder holds no run, pyarrow is not installed, or a file cannot be written.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as parquet  # type: ignore[import-untyped]
    except ImportError:
        raise OmnisinkError(f"writing Parquet needs pyarrow: {install('eval')}") from None
    manifest, methods = _read(run)
    kinds = sorted({kind for records in methods.values() for r in records.values() for kind in r.get("groups") or {}})
    types = {name: pa.type_for_alias(alias) for name, alias in _COLUMNS.items()}
    schema = pa.schema({**types, **{f"group_{kind}": pa.list_(pa.string()) for kind in kinds}})
    slugs, written = _slugs(methods), []
    for slug, records in zip(slugs, methods.values(), strict=True):
        rows = [_row(records[name], kinds) for name in sorted(records)]
        buffer = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
        written.append(_write(Path(out) / "data" / f"{slug}-00000-of-00001.parquet", buffer.getvalue()))
    written.append(_write(Path(out) / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"))
    written.append(_write(Path(out) / "README.md", _card(manifest, methods, slugs)))
    return written


def _read(run: str | Path) -> tuple[EvaluationManifest, dict[str, dict[str, EvaluationRecord]]]:
    """Return the manifest, and the last attempt at every question by method and id."""
    found = read_manifest(run)
    if not isinstance(found.get("task"), dict) or "name" not in found["task"]:
        raise OmnisinkError(f"{run} is not a run of omnisink eval, or its manifest does not name the task")
    manifest = typed(found, EvaluationManifest, f"{run}: its manifest cannot be used")
    methods: dict[str, dict[str, EvaluationRecord]] = {name: {} for name in manifest.get("methods") or {}}
    for record in sorted(read_parts(run), key=lambda r: int(r["attempt"])):
        methods.setdefault(record["method"], {})[record["id"]] = record
    methods = {name: records for name, records in methods.items() if records}
    if not methods:
        raise OmnisinkError(f"{run}: nothing has been answered yet")
    return manifest, methods


def _slugs(methods: Iterable[str]) -> list[str]:
    """Return the methods as names of files and configurations, none of which leads out of a folder."""
    names = list(methods)
    slugs = [_slug(name) for name in names]
    # Some file systems do not distinguish capitals from small letters.
    if len({slug.casefold() for slug in slugs}) < len(slugs):
        raise OmnisinkError(f"two methods have the same name as a file: {', '.join(map(shown, names))}")
    return slugs


def _slug(name: str) -> str:
    """Return one name as that of a file, on any system: no separators, no dots at its ends, not too long."""
    slug = re.sub(r"[^\w.-]+", "_", name)
    if not slug.strip("._-"):
        raise OmnisinkError(f"the name {shown(name)} cannot be that of a file: nothing in it is a letter or a digit")
    if slug[0] in ".-" or _DEVICE.fullmatch(slug):
        slug = f"_{slug}"
    if slug.endswith("."):
        slug = f"{slug}_"
    if len(slug.encode()) > _LONGEST:
        slug = f"{slug.encode()[:_LONGEST].decode(errors='ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return slug


def _date(manifest: EvaluationManifest) -> str:
    """Return when the run was started, as lmms-eval writes it."""
    try:
        return datetime.fromisoformat(str(manifest["started"])).strftime("%Y%m%d_%H%M%S")
    except (KeyError, ValueError):
        raise OmnisinkError("the manifest does not say when the run was started") from None


def _sample(task: str, place: int, text: str, record: EvaluationRecord) -> dict[str, Any]:
    text_said, parsed, gold = (record.get(name) for name in ("text", "parsed", "gold"))
    said = text_said if text_said is not None else parsed
    score = {"pred": parsed, "answer": gold}
    if record["right"] is not None:
        score = {"score": float(record["right"]), "cluster": record["cluster"], **score}
    return {
        "doc_id": place,
        "target": str(gold),
        "filtered_resps": "" if said is None else said,
        "token_counts": [{"input_tokens": record.get("prompt_tokens"), "output_tokens": record.get("new_tokens")}],
        "doc_hash": record.get("prompt_sha256"),
        f"{task}_score": score,
        "unparsed": float(parsed is None),
        "id": record["id"],
        "groups": record.get("groups") or {},
        "loss": record.get("loss"),
        "margin": record.get("margin"),
        "input": text,
    }


def _results(
    manifest: EvaluationManifest, method: str, task: str, records: Sequence[EvaluationRecord]
) -> dict[str, Any]:
    """Return what lmms-eval has beside the samples, as far as a run of ours knows it."""
    facts = manifest["task"]
    scores = measure(records, facts.get("metric") or "accuracy", (), facts.get("mean_over") or "")
    model = manifest.get("model") or {}
    unparsed = scores.unparsed / scores.questions if scores.questions else None
    shown = {f"{task}_score,none": scores.value, "unparsed,none": unparsed, "errors,none": scores.errors}
    return {
        "results": {task: {"alias": task, **shown}},
        "n-samples": {task: {"original": facts.get("questions"), "effective": scores.questions}},
        "config": {"model": "omnisink", "model_args": f"pretrained={model.get('name')},method={method}"},
        "model_name": model.get("name"),
        "date": _date(manifest),
        "omnisink": manifest,
    }


def _row(record: EvaluationRecord, kinds: Sequence[str]) -> dict[str, Any]:
    found = {name: _whole_text(record.get(name)) for name in _COLUMNS}
    if found["right"] is not None:
        found["right"] = float(found["right"])
    groups = {f"group_{kind}": _list((record.get("groups") or {}).get(kind, ())) for kind in kinds}
    return {**found, **groups}


def _list(members: str | Sequence[str]) -> list[str]:
    return [members] if isinstance(members, str) else list(members)


def _whole_text(value: Any) -> Any:
    """Spell out half a surrogate pair, which a text of a model can hold and Arrow cannot."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _card(
    manifest: EvaluationManifest, methods: Mapping[str, Mapping[str, EvaluationRecord]], slugs: Sequence[str]
) -> str:
    import yaml  # type: ignore[import-untyped]

    task, model = manifest["task"], (manifest.get("model") or {}).get("name") or "a model"
    title = " ".join(f"{task.get('title') or task['name']}, answered by {model}".split())
    files = [{"split": "test", "path": f"data/{slug}-00000-of-00001.parquet"} for slug in slugs]
    configs: list[dict[str, Any]] = [{"config_name": s, "data_files": [f]} for s, f in zip(slugs, files, strict=True)]
    configs[0]["default"] = True
    header = {"pretty_name": title, "tags": ["omnisink", "attention-sink"], "configs": configs}
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {plain_markdown(title)}",
        "",
        f"Split {plain_markdown(task.get('split'))}, protocol {plain_markdown(task.get('protocol'))}, scored by "
        f"{plain_markdown(manifest.get('score'))}. One row is "
        "one question under one method; each method is a configuration. Made with omnisink; `manifest.json` says what "
        "was run. Questions and media are not part of it, and the benchmark's own licence holds for them.",
        "",
        "| method | configuration | settings | answered | errors | score |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for slug, (name, records) in zip(slugs, methods.items(), strict=True):
        scores = measure(records.values(), task.get("metric") or "accuracy", (), task.get("mean_over") or "")
        score = "" if scores.value is None else number(scores.value, ".2%")
        settings = plain_markdown(json.dumps((manifest.get("methods") or {}).get(name)))
        named = f"{plain_markdown(name)} | {plain_markdown(slug)}"
        lines.append(f"| {named} | {settings} | {scores.questions} | {scores.errors} | {score} |")
    lines += [
        "",
        "`right` is from 0 to 1. Where `error` is not null the question could not be asked: it is not a wrong answer.",
        "`loss` and `margin` are in nats, of the right answer's first token; null where that is not one token.",
        "",
    ]
    return "\n".join(lines)


def _line(sample: Mapping[str, Any]) -> str:
    return json.dumps(sample, ensure_ascii=False) + "\n"


def _write(path: Path, content: str | bytes) -> Path:
    with os_errors_named(path.parent, "made"):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
    return path
