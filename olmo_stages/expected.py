"""Which jobs a sweep was asked for, written down before the first one starts.

A job that never started leaves no other trace. Every launch notes its own list in the sweep's
folder, as a file named after the list: the same command comes back to the same file, launches at
the same time do not disturb one another, and together the lists are all that the sweep was ever
asked for. Whoever no longer wants a job of an earlier launch removes that file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from olmo_stages.atomic import OUTPUTS, write_file
from olmo_stages.errors import ConfigError
from olmo_stages.provenance import now, redact_arguments
from olmo_stages.stages import lookup
from olmo_stages.types import Stage

FOLDER = "expected"
"""Name of the folder of the lists in a sweep's folder."""

_NOTHING = frozenset({"", "none", "null"})


@dataclass(frozen=True)
class Expected:
    """A job that a sweep was asked for.

    Args:
        job: name, unique in its sweep.
        overrides: what the sweep set for this job.
        about: what can be told of it beforehand, under the names of `Job.about()`.
    """

    job: str
    overrides: Sequence[str] = ()
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Launch:
    """What one launch asked a sweep for.

    Args:
        asked: when, as ISO 8601.
        jobs: in their order.
        command: words that ask for it again; none where they were not noted.
    """

    asked: str
    jobs: Sequence[Expected]
    command: Sequence[str] = ()


def place_of(sweep_dir: Path, jobs: Sequence[Expected]) -> Path:
    """The file that a list of jobs is noted in; the same jobs have the same."""
    digest = sha256("\n".join(it.job for it in jobs).encode()).hexdigest()
    return sweep_dir / FOLDER / f"{digest[:12]}.json"


def write_expected(sweep_dir: Path, jobs: Sequence[Expected], command: Sequence[str] = ()) -> Path:
    """Note which jobs a sweep is asked for, without secrets.

    Args:
        sweep_dir: folder of the sweep.
        jobs: what it is asked for.
        command: words that ask for these jobs again, which hold no secret.

    Raises:
        StoreError: the folder cannot be written.

    Returns:
        The file.
    """
    clean = [asdict(replace(it, overrides=redact_arguments(it.overrides))) for it in jobs]
    path = place_of(sweep_dir, jobs)
    content = {"asked": now().isoformat(), "command": list(command), "jobs": clean}
    write_file(path, json.dumps(content).encode(), OUTPUTS)
    return path


def read_expected(sweep_dir: Path) -> list[Expected]:
    """All jobs that a sweep was ever asked for, each once, in the order they were asked for.

    Returns:
        Nothing for a sweep of an earlier version, or one that ran a single job.
    """
    jobs: dict[str, Expected] = {}
    for launch in read_launches(sweep_dir):
        jobs |= {it.job: it for it in launch.jobs}
    return list(jobs.values())


def read_launches(sweep_dir: Path) -> list[Launch]:
    """What each launch asked a sweep for, the earliest first; without those that are damaged."""
    found = map(_read, (sweep_dir / FOLDER).glob("*.json"))
    return sorted((it for it in found if it is not None), key=lambda it: it.asked)


def _read(path: Path) -> Launch | None:
    try:
        content = json.loads(path.read_bytes())
        jobs = [Expected(**it) for it in content["jobs"]]
        return Launch(str(content["asked"]), jobs, [*map(str, content.get("command", ()))])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def told(overrides: Sequence[str], otherwise: Mapping[str, str] | None = None) -> dict[str, str]:
    """What can be told of a job before it runs, under the names of `Job.about()`.

    Args:
        overrides: what the sweep sets for it, as `key=value`.
        otherwise: values of `model`, `analysis`, `data`, `size` and `reference` where the overrides
            say nothing; None = not known.

    Returns:
        Nothing under a name where nothing can be told. The data is called as on the command line,
        which a data set may make more precise when it is loaded.
    """
    pairs = (override.lstrip("+~").partition("=") for override in overrides)
    words = dict(otherwise or {}) | {key: value.strip("'\"") for key, _, value in pairs}
    known = {name: words[name] for name in ("size", "analysis", "data") if words.get(name)}
    stage = _stage(words)
    if stage is None:
        return known
    about = {"stage": stage.label, **known}
    if stage.size:
        about["size"] = stage.size
    reference = _reference(stage, words)
    return about if reference is None else about | {"reference": reference}


def _stage(words: Mapping[str, str]) -> Stage | None:
    """The stage as far as words tell of it; without parent and size where these are not known."""
    name, revision = words.get("model", ""), words.get("model.revision", "")
    if name in {"custom", "soup"}:
        called = words.get("model.name") or Path(words.get("model.path", "")).name
        before = _found(words.get("model.parent", ""), words)
        own = Stage(called, "custom" if name == "custom" else "", "", revision or "main", before)
        return own if called else None
    if not name:
        return None
    spelt = f"{name}@{revision}" if revision else name
    return _found(spelt, words) or Stage(name, "", "", revision or "main")


def _found(spelt: str, words: Mapping[str, str]) -> Stage | None:
    """A stage of the catalogue, as `NAME[@REVISION]`."""
    try:
        return lookup(spelt, words["size"]) if words.get("size") and spelt else None
    except ConfigError:  # the job says so itself, should it ever run
        return None


def _reference(stage: Stage, words: Mapping[str, str]) -> str | None:
    """Label of the other side, empty where there is none; None where it cannot be told."""
    wanted = words.get("reference")
    if wanted is None:
        return None
    if wanted.lower() in _NOTHING:
        return ""
    if wanted not in {"parent", "base"}:
        found = _found(wanted, words)
        return wanted if found is None else found.label
    if stage.parent is not None:
        before, root = stage.parent.label, stage.lineage()[0].name
    elif _found(stage.label, words) is not None or _has_no_parent(stage, words):
        before, root = "", stage.name
    else:
        return None
    # A revision of the root is compared with the released root.
    return before if wanted == "parent" else ("" if root == stage.label else root)


def _has_no_parent(stage: Stage, words: Mapping[str, str]) -> bool:
    return stage.size == "custom" and words.get("model.parent", "").lower() in _NOTHING
