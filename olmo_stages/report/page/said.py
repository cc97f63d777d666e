"""Findings as they are read: what a number says, and below it what is to be known of that."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from olmo_stages.document import Study


@dataclass(frozen=True)
class Said:
    """A finding.

    Args:
        name: what it is about, where it begins with that.
        text: the rest.
        more: findings that follow it and are about the same.
    """

    name: str
    text: str
    more: tuple[str, ...] = ()


def names_of(study: Study) -> list[str]:
    """What findings may begin with: numbers that edges carry, analyses and titles of sections."""
    numbers = (shift.change.name for edge in study.edges for shift in edge.shifts)
    analyses = (name for it in study.sections for name in (it.analysis, it.title))
    return list(dict.fromkeys([*numbers, *analyses]))


def gathered(findings: Iterable[str], names: Sequence[str]) -> list[Said]:
    """Put findings that follow one another and begin with the same name together."""
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    found: list[Said] = []
    for finding in findings:
        ways = (it for it in longest_first if finding.startswith((f"{it}: ", f"{it}, ")))
        name = next(ways, "")
        text = finding[len(name) :]
        if name and found and found[-1].name == name:
            rest = text[2:]
            more = (*found[-1].more, f"{rest[:1].upper()}{rest[1:]}" if text[0] == ":" else rest)
            found[-1] = replace(found[-1], more=more)
        else:
            found.append(Said(name, text))
    return found
