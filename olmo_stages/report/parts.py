"""What the sections of a report are made of: jobs that belong together."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from olmo_stages.report.across import Assembled
from olmo_stages.report.kept import Done, Kept, read_kept
from olmo_stages.report.pool import Group, Pool
from olmo_stages.report.spoken import Spoken, of_module, of_record
from olmo_stages.report.tree import size_of
from olmo_stages.types import Change, Measurement

_DIGITS = 8
_LONGEST = 48


@dataclass(frozen=True, eq=False)
class Part:
    """The jobs of a section, and what was put together of them.

    Args:
        key: unique in the study; letters, digits, `-` and `_`.
        group: the jobs.
        tells: settings in which it differs from the other parts of its analysis, by name.
        whole: what was put together of the jobs; None where there is nothing.
        spoken: what the analysis says of itself.
        notes: why something is left out.
    """

    key: str
    group: Group
    tells: Mapping[str, str]
    whole: Kept | None
    spoken: Spoken
    notes: tuple[str, ...]

    @property
    def jobs(self) -> tuple[Done, ...]:
        """Its jobs, in the order of the lineage."""
        return self.group.jobs

    @property
    def analysis(self) -> str:
        """Name of the analysis."""
        return self.group.key["analysis"]

    @property
    def data(self) -> str:
        """Name of the data set."""
        return self.group.key["data"]

    @property
    def title(self) -> str:
        """What tells it from the other parts."""
        told = [f"{name}={value}" for name, value in self.tells.items()]
        return " · ".join([f"{self.analysis} on {self.data}", *told])

    @property
    def changes(self) -> tuple[Change, ...]:
        """What the analysis says of an edge of the lineage."""
        return self.spoken.changes

    @cached_property
    def sizes(self) -> frozenset[str]:
        """Sizes of the lineages that its stages are part of."""
        return frozenset(map(size_of, self.jobs))

    @cached_property
    def rows(self) -> tuple[Measurement, ...]:
        """The numbers of its jobs, then those about all of them."""
        return rows_of(self.jobs, self.whole)

    @cached_property
    def rows_about(self) -> Mapping[Change, Sequence[Measurement]]:
        """Those of its rows among which each change is looked for."""
        found: dict[Change, list[Measurement]] = {it: [] for it in self.changes}
        for row in self.rows:
            if row.layer is None:
                told = (row.metric, row.variant)
                for change, rows in found.items():
                    across = (change.metric_across, change.variant_across)
                    if told in {(change.metric, change.variant), across}:
                        rows.append(row)
        return found


def rows_of(jobs: Sequence[Done], whole: Kept | None) -> tuple[Measurement, ...]:
    """The numbers of jobs, then those about all of them."""
    return tuple(row for it in (*jobs, *([] if whole is None else [whole])) for row in it.rows)


def parts(assembled: Sequence[Assembled], jobs: Pool | None = None) -> tuple[Part, ...]:
    """One part for each group of jobs, in the same order.

    Args:
        assembled: the groups.
        jobs: all jobs; what tells a group from jobs without a result is told of it, too.
    """
    groups = [it.group for it in assembled]
    tells = [_from_undone(it, jobs) | told for it, told in zip(groups, _tells(groups), strict=True)]
    keys = _keys(groups)
    return tuple(_part(it, key, told) for it, key, told in zip(assembled, keys, tells, strict=True))


def _part(assembled: Assembled, key: str, tells: Mapping[str, str]) -> Part:
    group = assembled.group
    whole = None if assembled.folder is None else read_kept(assembled.folder)
    remembered = None
    if whole is not None and assembled.is_current:
        remembered = of_record(whole.mark["job"].get("spoken"))
    spoken = remembered or of_module(group.key["target"], rows_of(group.jobs, whole))
    notes = (*assembled.warnings, *filter(None, [spoken.wrong]))
    return Part(key, group, tells, whole, spoken, notes)


def _keys(groups: Sequence[Group]) -> list[str]:
    plain = [_safe(f"{group.key['analysis']}-{group.key['data']}") for group in groups]
    return [
        f"{key}-{group.digest[:_DIGITS]}" if plain.count(key) > 1 else key
        for key, group in zip(plain, groups, strict=True)
    ]


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:_LONGEST] or "section"


def _tells(groups: Sequence[Group]) -> list[dict[str, str]]:
    """For each group the settings that differ among those of its analysis on its data."""
    settings = [_settings(group) for group in groups]
    several_sizes = len({group.key["size"] for group in groups}) > 1
    told: list[dict[str, str]] = []
    for group, own in zip(groups, settings, strict=True):
        others = [
            it
            for it, other in zip(settings, groups, strict=True)
            if all(other.key[name] == group.key[name] for name in ("analysis", "data"))
        ]
        names = dict.fromkeys(name for it in others for name in it)
        differing = [name for name in names if len({it.get(name) for it in others}) > 1]
        if several_sizes and "size" not in differing:
            differing.insert(0, "size")
        told.append({name: own.get(name, "-") for name in differing})
    return told


def _from_undone(group: Group, jobs: Pool | None) -> dict[str, str]:
    """What its jobs share and jobs of its analysis without a result have otherwise."""
    if jobs is None:
        return {}
    analysis = group.key["analysis"]
    apart = [jobs.told_apart(analysis, jobs.given.get(it.digest, {})) for it in group.jobs]
    return {
        name: value
        for name, value in apart[0].items()
        if name != "data" and all(it.get(name) == value for it in apart)
    }


def _settings(group: Group) -> dict[str, str]:
    """What a part may be told from others by, by name, in the order of importance."""
    key = group.key
    responses = key["responses"] or {}
    # The digest of what was read is part of the pass, too, and says nothing more.
    passes = {name: it for name, it in key["pass"].items() if name != "data"}
    nested: list[tuple[str, Mapping[str, Any]]] = [
        ("", {"size": key["size"]}),
        ("", key["options"]),
        ("", passes),
        ("responses", responses),
        ("", {"seed": key["seed"], "version": key["version"], "code": key["target"]}),
        ("", {"data digest": str(key["data_digest"])[:_DIGITS]}),
    ]
    return {name: text for prefix, values in nested for name, text in _flat(prefix, values).items()}


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        whole = f"{prefix} {name}".strip()
        if isinstance(value, Mapping):
            found |= _flat(whole, value)
        else:
            found[whole] = value if isinstance(value, str) else json.dumps(value)
    return found
