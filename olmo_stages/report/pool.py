"""The jobs of sweeps: which are done, and which of them belong together."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from olmo_stages.command import changes_job
from olmo_stages.errors import StoreError
from olmo_stages.expected import told
from olmo_stages.lineage import lineage_order
from olmo_stages.records import Status, locate
from olmo_stages.records import canonical_json as canonical
from olmo_stages.report.kept import Done, read_done

_DONE = frozenset({"ok", "cached"})
# What a job that never started tells reliably; data may be called otherwise once it is loaded.
_TOLD = ("stage", "size", "analysis")
# What a report says of a job anyway, or what only brings other settings with it.
_NAMED = frozenset({"model", "size", "analysis", "reference", "experiment"})


@dataclass(frozen=True, eq=False)
class Group:
    """Jobs that are seen together.

    Args:
        key: what they share, as `Done.key` says it.
        jobs: in the order of the lineage.
    """

    key: Mapping[str, Any]
    jobs: tuple[Done, ...]

    @property
    def digest(self) -> str:
        """Identity of what they share."""
        return hashlib.sha256(canonical(dict(self.key)).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Undone:
    """A job without a result.

    Args:
        sweep: folder of its sweep.
        status: how it ended.
        damaged: what is wrong with the result that it left; empty where it left none.
    """

    sweep: Path
    status: Status
    damaged: str = ""

    @property
    def settings(self) -> dict[str, str]:
        """What it was given beside stage, reference and analysis."""
        return _options(self.status)


@dataclass(frozen=True, eq=False)
class Pool:
    """The jobs of one sweep or several.

    Args:
        done: finished jobs, each once.
        undone: jobs without a result that no other sweep has either.
        given: settings that finished jobs were given, by their digest.
    """

    done: tuple[Done, ...]
    undone: tuple[Undone, ...]
    given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @cached_property
    def telling(self) -> Mapping[str, frozenset[str]]:
        """For each analysis the settings that tell its unfinished jobs from others of its own."""
        values: dict[str, dict[str, set[str]]] = {}
        jobs = [(job.about["analysis"], self.given.get(job.digest, {})) for job in self.done]
        jobs += [(analysis_of(it), it.settings) for it in self.undone]
        for analysis, settings in jobs:
            for name, value in settings.items():
                values.setdefault(analysis, {}).setdefault(name, set()).add(value)
        return {
            analysis: frozenset(name for name, several in found.items() if len(several) > 1)
            for analysis, found in values.items()
            if any(analysis_of(it) == analysis for it in self.undone)
        }

    def told_apart(self, analysis: str, settings: Mapping[str, str]) -> dict[str, str]:
        """Those settings that tell a job from unfinished ones of its analysis, or these from it."""
        telling = self.telling.get(analysis, frozenset())
        return {name: value for name, value in settings.items() if name in telling}

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Jobs that belong together, by analysis, data and what else tells them apart."""
        by_key: dict[str, list[Done]] = {}
        for job in self.done:
            by_key.setdefault(canonical(job.key()), []).append(job)
        place = lineage_order()
        groups: list[Group] = []
        for members in by_key.values():
            members.sort(key=lambda job: tuple(map(place, job.labels)))
            groups.append(Group(members[0].key(), tuple(members)))
        return tuple(sorted(groups, key=_group_order))


def pool(sweeps: Mapping[Path, Sequence[Status]]) -> Pool:
    """Read the jobs of sweeps back.

    A job counts once, whichever sweeps it is in; one that failed in a sweep and is done in another
    is done.

    Args:
        sweeps: jobs by folder of the sweep, as `records.read_statuses` gives them.
    """
    done: dict[str, Done] = {}
    left: list[Undone] = []
    settings: dict[frozenset[str], list[Status]] = {}
    given: dict[str, Mapping[str, str]] = {}
    for sweep, statuses in sweeps.items():
        for status in statuses:
            if status.state not in _DONE or status.folder is None:
                left.append(Undone(sweep, status))
                continue
            folder = locate(sweep, Path(status.folder))
            try:
                job = read_done(folder)
            except StoreError as error:
                left.append(Undone(sweep, status, damaged=str(error)))
                continue
            done.setdefault(job.digest, job)
            given.setdefault(job.digest, _options(status))
            settings.setdefault(_settings(status), []).append(status)
    undone = [it for it in left if not _is_done(it.status, settings)]
    return Pool(tuple(done.values()), tuple(undone), given)


def _is_done(status: Status, done: Mapping[frozenset[str], Sequence[Status]]) -> bool:
    """Whether a job of the same settings is done, e.g. in another sweep.

    A job that failed early tells nothing but its settings; what it does tell must agree.
    """
    own = _settings(status)
    told = {name: status.about[name] for name in _TOLD if status.about.get(name)}
    return bool(own) and any(
        all(it.about.get(name) == value for name, value in told.items()) for it in done.get(own, ())
    )


def analysis_of(undone: Undone) -> str:
    """The analysis of a job without a result; empty where it cannot be told."""
    return {**told(undone.status.overrides), **undone.status.about}.get("analysis", "")


def _options(status: Status) -> dict[str, str]:
    pairs = (it.lstrip("+~").partition("=") for it in status.overrides if changes_job(it))
    return {
        name.removeprefix("analysis."): value.strip("'\"")
        for name, _, value in pairs
        if name not in _NAMED and not name.startswith("model.")
    }


def _settings(status: Status) -> frozenset[str]:
    return frozenset(it for it in status.overrides if changes_job(it))


def _group_order(group: Group) -> tuple[str, str, str, str]:
    key = group.key
    return key["analysis"], key["data"], key["size"], canonical(dict(key))
