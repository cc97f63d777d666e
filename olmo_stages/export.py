"""What `olmo-stages export` does: trait vectors of a job or a sweep, in the format of a tool."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from olmo_stages import records
from olmo_stages.atomic import safe_name
from olmo_stages.errors import ConfigError
from olmo_stages.statuses import read_statuses
from olmo_stages.vectors.files import TraitVector
from olmo_stages.vectors.formats import first_block_of, save_gguf, save_steering
from olmo_stages.vectors.results import ANALYSES, Side, vectors_of

ExportFormat = Literal["safetensors", "gguf", "steering-vectors"]
"""The formats that vectors are written in."""


@dataclass(frozen=True)
class _Way:
    """How a format is written, and the line that loads it."""

    suffix: str
    save: Callable[[TraitVector, Path], None]
    load: str


_WAYS: Mapping[str, _Way] = {
    "safetensors": _Way(".safetensors", TraitVector.save, "olmo_stages.load_vector({!r})"),
    "gguf": _Way(
        ".gguf", save_gguf, "llama-cli --control-vector {0}, or ControlVector.import_gguf({0!r})"
    ),
    "steering-vectors": _Way(
        ".steering.safetensors",
        save_steering,
        "SteeringVector({{int(i): v for i, v in load_file({!r}).items()}})",
    ),
}
_FILES = {".safetensors", ".gguf"}
_DONE = {"ok", "cached"}
_LAYERS = re.compile(r"\s*(-?\d+)(?:-(\d+))?\s*")


@dataclass(frozen=True)
class Wanted:
    """What is exported, and how.

    Args:
        format: see `ExportFormat`.
        trait: the trait; None = every trait.
        layers: block indices; None = every layer that the format has a place for.
        side: the stage's own vector or the reference's.
        unit: whether each vector is divided by its length.
        force: whether files that are there already are replaced.
    """

    format: ExportFormat = "safetensors"
    trait: str | None = None
    layers: tuple[int, ...] | None = None
    side: Side = "stage"
    unit: bool = False
    force: bool = False


@dataclass(frozen=True, eq=False)
class Exported:
    """A file that was written.

    Args:
        path: where it is.
        vector: what is in it.
        left_out: layers of the result that its format has no place for.
    """

    path: Path
    vector: TraitVector
    left_out: tuple[int, ...]


def export(folder: Path, out: Path | None, wanted: Wanted) -> tuple[Exported, ...]:
    """Write the trait vectors of a job, or of every job of a sweep; all of them or none.

    Args:
        folder: of a job's result, or of a sweep.
        out: a folder, or a file name with the format's suffix for a single vector; None = here.
        wanted: what is exported, and how.

    Returns:
        What was written, in the order of the jobs.

    Raises:
        ConfigError: the folder holds no vectors, what is wanted is not among them, the format has
            no place for it, or a file is there already.
        DataError: a vector is zero or not finite.
        StoreError: the result is damaged, or the place cannot be written.
    """
    way = _WAYS[wanted.format]
    found = [it for job in _jobs(folder) for it in vectors_of(job, records.read(job), wanted.side)]
    chosen = [_choose(it, wanted) for it in _different(_of_trait(folder, found, wanted))]
    paths = _paths([vector for vector, _ in chosen], out, way.suffix)
    if not wanted.force and (there := [path for path in paths if path.exists()]):
        raise ConfigError(f"{there[0]} is there already; replace it with --force, or give -o")
    done: list[Exported] = []
    for path, (vector, left_out) in zip(paths, chosen, strict=True):
        way.save(vector, path)
        done.append(Exported(path, vector, left_out))
    return tuple(done)


def describe(done: Sequence[Exported], format: ExportFormat) -> tuple[str, ...]:
    """What was written, one line a file, and the line that loads the first of them."""
    lines = [
        f"{it.path}: {it.vector.trait} of {it.vector.told('stage')} ({it.vector.told('size')}), "
        f"layers {_ranges(it.vector.layers)}, d_model {it.vector.d_model}"
        for it in done
    ]
    if left_out := sorted({layer for it in done for layer in it.left_out}):
        lines.append(f"left out: layers {_ranges(left_out)}, for which {format} has no place")
    return *lines, f"load: {_WAYS[format].load.format(str(done[0].path))}"


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """Read `3,7` or `3-7`; None for None.

    Raises:
        ConfigError: the text is no such list.
    """
    if text is None:
        return None
    layers: list[int] = []
    for part in text.split(","):
        match = _LAYERS.fullmatch(part)
        run = range(0) if match is None else range(int(match[1]), int(match[2] or match[1]) + 1)
        if not run:
            raise ConfigError(f"--layers {text}: {part!r} names no layer; give e.g. 3,7 or 3-7")
        layers += run
    return tuple(layers)


def _jobs(folder: Path) -> list[Path]:
    """The job's folder itself, or those of a sweep's finished jobs that hold vectors.

    Raises:
        ConfigError: there is neither, or the sweep has none that holds vectors.
    """
    if records.is_finished(folder):
        return [folder]
    statuses = read_statuses(folder)
    if not statuses:
        raise ConfigError(
            f"{folder} holds neither a finished result nor a sweep; give the folder that a job "
            "or a sweep named when it ended"
        )
    done = [Path(it.folder) for it in statuses if it.state in _DONE and it.folder is not None]
    analyses = {path: (records.read_mark(path)["job"] or {}).get("analysis", "") for path in done}
    # A probe's direction is asked for only where no trait vector is.
    for wanted in ANALYSES:
        if found := [path for path, analysis in analyses.items() if analysis == wanted]:
            return found
    raise ConfigError(
        f"no finished job of the sweep {folder} holds vectors (its analyses: "
        f"{', '.join(sorted(set(analyses.values()))) or 'none'}); "
        f"give one of analysis={' or analysis='.join(ANALYSES)}"
    )


def _of_trait(folder: Path, found: Sequence[TraitVector], wanted: Wanted) -> list[TraitVector]:
    """Those of the trait that is wanted.

    Raises:
        ConfigError: there is none; names the traits there are.
    """
    if not found:
        raise ConfigError(
            f"{folder} holds no vector of the {wanted.side}; it was run without a reference"
        )
    chosen = [it for it in found if wanted.trait in {None, it.trait}]
    if not chosen:
        traits = sorted({it.trait for it in found})
        raise ConfigError(
            f"{folder} has no vector of trait {wanted.trait!r}; its traits: {', '.join(traits)}"
        )
    return chosen


def _different(vectors: Sequence[TraitVector]) -> list[TraitVector]:
    """Each vector once: the jobs of a sweep may all have the same reference."""
    kept: list[TraitVector] = []
    for vector in vectors:
        if not any(_same(vector, other) for other in kept):
            kept.append(vector)
    return kept


def _same(a: TraitVector, b: TraitVector) -> bool:
    about = [
        (it.trait, it.told("stage"), it.told("data_digest"), it.site, it.kind) for it in (a, b)
    ]
    return about[0] == about[1] and np.array_equal(a.values, b.values)


def _choose(vector: TraitVector, wanted: Wanted) -> tuple[TraitVector, tuple[int, ...]]:
    """The layers that are wanted, or that the format has a place for, and those left out.

    Raises:
        ConfigError: no layer is left, or one is wanted that there is not.
    """
    left_out: tuple[int, ...] = ()
    if wanted.layers is not None:
        vector = vector.select(wanted.layers)
    elif wanted.format != "safetensors":
        first = first_block_of(wanted.format)
        left_out = tuple(layer for layer in vector.layers if layer < first)
        if len(left_out) == len(vector.layers):
            raise ConfigError(
                f"{wanted.format} has no place for layers {list(left_out)}, the only ones of the "
                f"vector of trait {vector.trait!r}; measure it at layers from {first}"
            )
        vector = vector.select(set(vector.layers) - set(left_out))
    return (vector.unit() if wanted.unit else vector), left_out


def _paths(vectors: Sequence[TraitVector], out: Path | None, suffix: str) -> list[Path]:
    """Where each goes: TRAIT.STAGE.SIZE, with data and job where two would share that.

    Raises:
        ConfigError: one file for several vectors, or of another suffix.
    """
    if out is not None and out.suffix in _FILES and not out.is_dir():
        if not out.name.endswith(suffix):
            raise ConfigError(f"-o {out}: the name must end with {suffix}")
        if len(vectors) > 1:
            raise ConfigError(
                f"-o {out} is one file for {len(vectors)} vectors; give a folder, or --trait"
            )
        return [out]
    names = [
        ".".join(safe_name(it) for it in (v.trait, v.told("stage"), v.told("size")))
        for v in vectors
    ]
    shared = Counter(names)
    return [
        (out or Path())
        / (
            name + suffix
            if shared[name] == 1
            else f"{name}.{safe_name(v.told('data'))}.{v.told('job')[:12]}{suffix}"
        )
        for name, v in zip(names, vectors, strict=True)
    ]


def _ranges(layers: Sequence[int]) -> str:
    """Return `0-3,7` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
