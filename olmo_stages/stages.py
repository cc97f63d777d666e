"""The stages and their lineage, read from conf/model: one YAML file a stage.

A stage names its parent, so that every checkpoint knows its whole lineage, and its source for each
size it was released in. Reading them needs neither Hydra nor torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from olmo_stages.errors import ConfigError
from olmo_stages.types import Stage

MINIATURE = "miniature"
"""Source of the stages of size=tiny."""

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


def catalogue() -> dict[str, dict[str, Any]]:
    """Every stage by name, as its YAML says, lineage order: parents before children."""
    found: dict[str, dict[str, Any]] = {}
    for folder in (conf_folder(), *_search.get()):
        for path in sorted((folder / "model").glob("*.yaml")):
            spec = yaml.safe_load(path.read_text(encoding="utf-8"))
            if spec.get("sources"):
                found[spec["name"]] = spec
    ordered: dict[str, dict[str, Any]] = {}

    def add(name: str) -> None:
        parent = found[name].get("parent")
        if parent in found and parent not in ordered:
            add(parent)
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
    stages = catalogue()
    if stage not in stages:
        near = get_close_matches(stage, stages, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"stage {stage!r} does not exist; choose from {', '.join(stages)}{hint}")
    spec = stages[stage]
    return resolve(
        name=stage,
        family=spec["family"],
        parent=spec["parent"],
        revision=revision or spec["revision"],
        size=size,
        sources=spec["sources"],
    )


def resolve(
    *,
    name: str,
    family: str,
    parent: str | None,
    revision: str,
    size: str,
    sources: Mapping[str, str],
) -> Stage:
    """A stage with its lineage, as conf/model/NAME.yaml describes it.

    Args:
        name: name of the stage.
        family: `olmo3` or `olmo2`.
        parent: `NAME` or `NAME@REVISION` of the stage it was trained from; None for a root.
        revision: branch, tag or commit.
        size: one of `sources`.
        sources: hub repo id, or `miniature`, for each size in which the stage exists.

    Raises:
        ConfigError: it was not released in that size, or its parent does not exist.
    """
    if size not in sources:
        raise ConfigError(
            f"stage {name} ({family}) does not exist in size={size}; its sizes: "
            f"{', '.join(sources)}. Choose one with size=..."
        )
    return Stage(
        name=name,
        size=size,
        source=sources[size],
        revision=revision,
        parent=None if parent is None else lookup(parent, size),
    )


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
