"""The stages and their lineage, read from conf/model: one YAML file a stage.

A stage names its parent, so that every checkpoint knows its whole lineage, and its source for each
size it was released in; further what `release` tells of it: the prompt format it is made for and
how its revisions are spelt. Reading them needs neither Hydra nor torch.

Keys of conf/model/NAME.yaml:

- `parent`: `NAME[@REVISION]`, or one for each size where they differ; null for a root.
- `format`: the prompt format it is made for, one of `FORMATS`.
- `branches`: for each size the spelling of its revisions besides `main`, as
  `olmo_stages.revisions.names` reads it; an empty list = `main` only, no entry = not known.
- `tokenizer_from`: for a size that was released without a tokenizer.json, the stage whose tokenizer
  is taken; the key may be left out.
- `grid`: for each size the revisions that a trajectory reads, about log-spaced, as -m takes them;
  studies refer to them as `${model.grid.${size}}`; the key may be left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import yaml

from olmo_stages.checks import checked
from olmo_stages.errors import ConfigError
from olmo_stages.shapes import SHAPES, Shape
from olmo_stages.types import Format, Stage, check_choice

MINIATURE = "miniature"
"""Source of the stages of size=tiny."""

FORMATS = tuple(name for name in get_args(Format) if name != "auto")
"""Values of `format` in conf/model."""

# The same in C where PyYAML was built with it, ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TOLD = ("format", "branches", "tokenizer_from", "grid")


@dataclass(frozen=True)
class Release:
    """A stage in one size, as conf/model describes it.

    Args:
        name: name of the stage.
        family: `olmo3` or `olmo2`.
        size: the size.
        source: hub repo id, or `miniature`.
        parent: `NAME[@REVISION]` of the stage it was trained from; None for a root.
        format: the prompt format it is made for; None where the YAML gives none.
        branches: spellings of its revisions besides `main`; None where they are not known.
        tokenizer_from: the stage whose tokenizer is taken, where its own is not whole; else None.
        shape: of its family in this size; None for a family of the user's own.
    """

    name: str
    family: str
    size: str
    source: str
    parent: str | None
    format: str | None
    branches: tuple[str, ...] | None
    tokenizer_from: str | None
    shape: Shape | None


_search: ContextVar[tuple[Path, ...]] = ContextVar("_search", default=())


def conf_folder() -> Path:
    """The folder of the configs: inside an installed wheel, else at the top of the checkout."""
    package = Path(__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


@contextmanager
def searching(folders: Sequence[Path]) -> Iterator[None]:
    """Look for stages in these config folders too, as Hydra's --config-dir does.

    Args:
        folders: config roots, each with a folder `model`.

    Yields:
        Nothing; the folders hold within the context.
    """
    token = _search.set(tuple(folders))
    try:
        yield
    finally:
        _search.reset(token)


def catalogue() -> Mapping[str, Mapping[str, Any]]:
    """Every stage by name, as its YAML says, lineage order: parents before children."""
    folders = [it / "model" for it in (conf_folder(), *_search.get())]
    files = [file for folder in folders for file in sorted(folder.glob("*.yaml"))]
    return _in_order(tuple((file, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=8)
def _in_order(files: tuple[tuple[Path, int], ...]) -> Mapping[str, Mapping[str, Any]]:
    """What files say, given with their times: a launch of many jobs asks many times for each."""
    found: dict[str, dict[str, Any]] = {}
    for path, _ in files:
        spec = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
        if spec.get("sources"):
            found[spec["name"]] = spec
    ordered: dict[str, dict[str, Any]] = {}

    def add(name: str) -> None:
        parent = found[name].get("parent")
        for each in parent.values() if isinstance(parent, dict) else (parent,):
            # Its name without the revision; a stage that names itself is no parent to wait for.
            before = str(each).partition("@")[0]
            if before in found and before not in ordered and before != name:
                add(before)
        ordered.setdefault(name, found[name])

    for name in found:
        add(name)
    return ordered


def lookup(name: str, size: str) -> Stage:
    """The stage `NAME` or `NAME@REVISION` in a size.

    Raises:
        ConfigError: no such stage, or it was not released in that size.
    """
    stage, _, revision = name.partition("@")
    spec = _spec(stage)
    return resolve(
        name=stage,
        family=spec["family"],
        parent=spec["parent"],
        revision=revision or spec["revision"],
        size=size,
        sources=spec["sources"],
    )


@checked
def resolve(
    *,
    name: str,
    family: str,
    parent: str | Mapping[str, str | None] | None,
    revision: str,
    size: str,
    sources: Mapping[str, str],
    **told: Any,  # noqa: ANN401  (settings that other functions read)
) -> Stage:
    """A stage with its lineage, as conf/model/NAME.yaml describes it.

    Args:
        name: name of the stage.
        family: `olmo3` or `olmo2`.
        parent: `NAME` or `NAME@REVISION` of the stage it was trained from, or one for each size;
            None for a root.
        revision: branch, tag or commit.
        size: one of `sources`.
        sources: hub repo id, or `miniature`, for each size in which the stage exists.
        **told: `format`, `branches` and `tokenizer_from`, which `release` tells, and `grid`; they
            say what was released and cannot be chosen.

    Raises:
        ConfigError: it was not released in that size, its parent does not exist, or an option is
            unknown or not to be chosen.
    """
    _check_told(name, told)
    _check_unchanged(name, told)
    _check_size(name, family, size, sources)
    before = _in_size(parent, size)
    return Stage(
        name=name,
        size=size,
        source=sources[size],
        revision=revision,
        parent=None if before is None else lookup(before, size),
    )


def release(name: str, size: str) -> Release:
    """What conf/model tells of a stage in a size.

    Args:
        name: name of the stage, without revision.
        size: one of its sizes.

    Raises:
        ConfigError: no such stage, it was not released in that size, or its YAML has an option
            that does not exist.
    """
    return _release(_spec(name), size)


def releases(size: str | None = None) -> tuple[Release, ...]:
    """Every stage in every size, or in one; parents before children.

    Raises:
        ConfigError: no stage has that size; names those there are.
    """
    specs = catalogue()
    sizes = tuple(dict.fromkeys(s for spec in specs.values() for s in spec["sources"]))
    if size is not None:
        check_choice("size", size, sizes)
    return tuple(
        _release(spec, each)
        for spec in specs.values()
        for each in spec["sources"]
        if size in {None, each}
    )


def _spec(name: str) -> Mapping[str, Any]:
    stages = catalogue()
    if name not in stages:
        raise ConfigError(
            f"stage {name!r} does not exist; choose from {', '.join(stages)}{_hint(name, stages)}"
        )
    return stages[name]


def _release(spec: Mapping[str, Any], size: str) -> Release:
    name, family, sources = spec["name"], spec["family"], spec["sources"]
    _check_told(name, {key: spec[key] for key in _TOLD if key in spec})
    _check_size(name, family, size, sources)
    spelt = (spec.get("branches") or {}).get(size)
    return Release(
        name=name,
        family=family,
        size=size,
        source=sources[size],
        parent=_in_size(spec["parent"], size),
        format=spec.get("format"),
        branches=None if spelt is None else tuple(spelt),
        tokenizer_from=(spec.get("tokenizer_from") or {}).get(size),
        shape=SHAPES.get((family, size)),
    )


def _in_size(parent: str | Mapping[str, str | None] | None, size: str) -> str | None:
    return parent.get(size) if isinstance(parent, Mapping) else parent


def _check_size(name: str, family: str, size: str, sources: Mapping[str, str]) -> None:
    if size not in sources:
        raise ConfigError(
            f"stage {name} ({family}) does not exist in size={size}; its sizes: "
            f"{', '.join(sources)}. Choose one with size=...{_hint(size.lower(), sources)}"
        )


def _check_told(name: str, told: Mapping[str, Any]) -> None:
    for key in told:
        if key not in _TOLD:
            raise ConfigError(f"stage {name}: no option {key!r}{_hint(key, _TOLD)}")
    if told.get("format") is not None:
        check_choice(f"stage {name}: format", told["format"], FORMATS)


def _check_unchanged(name: str, told: Mapping[str, Any]) -> None:
    """Refuse what would be taken for a choice and change nothing.

    Raises:
        ConfigError: an option differs from the stage's YAML.
    """
    spec = catalogue().get(name) if told else None
    remedy = {
        "format": "data.format=...",
        "branches": "model.revision=...",
        "grid": "model.revision=...",
        "tokenizer_from": "model=custom and a directory that holds weights and tokenizer",
    }
    for key, value in told.items():
        if spec is not None and value != spec.get(key):
            raise ConfigError(
                f"model.{key}={value} says what was released and cannot be changed; "
                f"choose with {remedy[key]}"
            )


def _hint(wrong: str, options: Iterable[str]) -> str:
    near = get_close_matches(wrong, list(options), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


@checked
def custom(
    *, path: str | None, name: str | None, parent: str | None, revision: str, size: str
) -> Stage:
    """A user's own checkpoint, with a parent in the lineage or none.

    Args:
        path: local directory in Hugging Face format, or a hub repo id.
        name: how tables call it; default: the last part of the path.
        parent: `NAME` or `NAME@REVISION` of a stage, or None.
        revision: hub revision; unused for a directory.
        size: size of the parent.

    Raises:
        ConfigError: no path, or an unknown parent.
    """
    if not path:
        raise ConfigError("model=custom needs model.path=DIRECTORY or model.path=HUB_ID")
    source = str(Path(path).expanduser())
    return Stage(
        name=name or Path(source).name,
        size="custom",
        source=source,
        revision=revision,
        parent=None if parent is None else lookup(parent, size),
    )
