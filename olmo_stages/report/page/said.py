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


def gathered(findings: Iterable[str], names: Sequence[str], *, of_one: bool = False) -> list[Said]:
    """Put findings that follow one another and begin with the same name together.

    Args:
        findings: sentences.
        names: what they may begin with.
        of_one: whether those without a name are about the same as the one before.
    """
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    found: list[Said] = []
    for finding in findings:
        ways = (it for it in longest_first if finding.startswith((f"{it}: ", f"{it}, ")))
        name = next(ways, "")
        text = finding[len(name) :]
        before = found[-1] if found else Said("", "")
        if before.name and (before.name == name or (of_one and not name)):
            rest = text[2:] if name else text
            rest = f"{rest[:1].upper()}{rest[1:]}" if text.startswith(":") else rest
            found[-1] = replace(before, more=(*before.more, rest))
        else:
            found.append(Said(name, text))
    return found
