"""How revisions are spelt, in which order they were trained, and a log-spaced choice of them.

Repositories differ: `stage1-step1000`, `step1000`, `step_0025`, `step_050`, `5e-5-step1000`,
`stage2-ingredient1-step11931-tokens50B`. A spelling is written with capitals for the numbers:

- `N`: the step; `NNNN` = padded with zeros to four digits.
- `K`: the ingredient. `T`: the tokens, in billions.
- then, where it is known, the range of the steps: `stepN 1000..43000` or `stepN ..43000`.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from itertools import pairwise

from olmo_stages.errors import ConfigError

MAIN = "main"
"""The released model; not the last step of every stage."""

_NAME = re.compile(
    r"(?:stage(?P<phase>[1-9])-)?(?:ingredient(?P<ingredient>\d+)-)?(?:(?P<lr>\d+e-\d+)-)?"
    r"step_?(?P<step>\d+)(?:-tokens(?P<tokens>\d+)B)?"
)
_SPELLING = re.compile(r"(?P<text>\S+)(?: (?P<first>\d+)?\.\.(?P<last>\d+))?")
_NUMBERS = re.compile(r"N+|K|T")
_BILLION = 10**9


@dataclass(frozen=True)
class Revision:
    """A revision, as its name tells.

    Args:
        name: branch or tag.
        phase: stage of pretraining, 1 to 3; None where the name gives none.
        ingredient: which of several midtraining runs.
        lr: which of several learning rates.
        step: optimiser steps within the phase; None for `main`.
        tokens: tokens seen within the phase, rounded to billions.
    """

    name: str
    phase: int | None = None
    ingredient: int | None = None
    lr: str | None = None
    step: int | None = None
    tokens: int | None = None

    @property
    def line(self) -> tuple[int | None, str | None]:
        """What tells runs apart that were trained side by side."""
        return self.ingredient, self.lr


def parse(name: str) -> Revision | None:
    """Read a revision's name.

    Returns:
        None for what is no point of training: an ablation, a pull request, a commit.
    """
    if name == MAIN:
        return Revision(MAIN)
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    numbers = {
        key: None if match[key] is None else int(match[key])
        for key in ("phase", "ingredient", "step", "tokens")
    }
    tokens = numbers.pop("tokens")
    return Revision(
        name, lr=match["lr"], tokens=None if tokens is None else tokens * _BILLION, **numbers
    )


def in_order(names: Iterable[str]) -> tuple[tuple[Revision, ...], tuple[str, ...]]:
    """Sort revisions by training, the released one last.

    Args:
        names: branches, in any order.

    Returns:
        The revisions, and by name the branches that are no points of training. Within a phase of
        pretraining, runs that were trained side by side follow one another.
    """
    known: list[Revision] = []
    others: list[str] = []
    for name in dict.fromkeys(names):
        revision = parse(name)
        if revision is None:
            others.append(name)
        else:
            known.append(revision)
    return tuple(sorted(known, key=_place)), tuple(sorted(others))


def log_spaced(revisions: Sequence[Revision], count: int) -> tuple[Revision, ...]:
    """Choose revisions at even distances of log(steps), those of earlier phases included.

    Args:
        revisions: one line of training, as `in_order` gives it.
        count: how many; at least 2.

    Returns:
        The first, the last and those nearest to the grid between them, in order and each once; all
        of them if there are no more than `count`. A revision at step 0 has no logarithm and is
        taken as it is.

    Raises:
        ConfigError: `count` is less than 2.
    """
    if count < 2:
        raise ConfigError(f"--log-spaced {count} leaves out the first or the last; give 2 or more")
    if len(revisions) <= count:
        return tuple(revisions)
    at = _progress(revisions)
    chosen = [0] if at[0] == 0 else []
    start, final = len(chosen), len(at) - 1
    n_grid = count - start
    low, high = math.log(at[start]), math.log(at[final])
    for k in range(n_grid - 1):
        target = low + (high - low) * k / (n_grid - 1)
        # Room is left for those that follow, so that none is taken twice.
        room = range(chosen[-1] + 1 if chosen else 0, final - (n_grid - 2 - k))
        chosen.append(min(room, key=lambda i: abs(math.log(at[i]) - target)))
    return tuple(revisions[i] for i in [*chosen, final])


def one_line(revisions: Sequence[Revision]) -> tuple[tuple[Revision, ...], tuple[str, ...]]:
    """Leave one of the runs that were trained side by side.

    Returns:
        The revisions of the first run, with those that all runs share, and the names of all runs;
        everything and nothing if there is one run only.
    """
    lines = dict.fromkeys(it.line for it in revisions if it.line != (None, None))
    if len(lines) < 2:
        return tuple(revisions), ()
    kept = {next(iter(lines)), (None, None)}
    names = tuple(lr or f"ingredient{ingredient}" for ingredient, lr in lines)
    return tuple(it for it in revisions if it.line in kept), names


@dataclass(frozen=True)
class Spelling:
    """How a repository spells its revisions.

    Args:
        text: with capitals for the numbers, e.g. `step_NNNN`.
        first: first step, where it is known.
        last: last step, where it is known.
    """

    text: str
    first: int | None = None
    last: int | None = None

    def __str__(self) -> str:
        if self.last is None:
            return self.text
        return f"{self.text} ({'' if self.first is None else self.first}..{self.last})"

    def fits(self, name: str) -> bool:
        """Whether a name is spelt so; says nothing of whether there is such a revision."""
        parts, end = [], 0
        for match in _NUMBERS.finditer(self.text):
            parts += [re.escape(self.text[end : match.start()]), _digits(match[0])]
            end = match.end()
        return re.fullmatch("".join([*parts, re.escape(self.text[end:])]), name) is not None

    def holds(self, name: str) -> bool:
        """Whether a name is spelt so, with a step in the range that is known."""
        revision = parse(name)
        if revision is None or revision.step is None or not self.fits(name):
            return False
        return (self.first or 0) <= revision.step <= (self.last or revision.step)

    def near(self, step: int) -> str | None:
        """The revision of a step, or of the nearest one known; None where it takes more numbers."""
        if {match[0][0] for match in _NUMBERS.finditer(self.text)} != {"N"}:
            return None
        step = max(self.first or 0, min(step, step if self.last is None else self.last))
        return _NUMBERS.sub(lambda match: f"{step:0{len(match[0])}d}", self.text)

    def spell(self, revision: Revision) -> str | None:
        """Spell a point of training as this repository does; None if it has another form."""
        tokens = None if revision.tokens is None else revision.tokens // _BILLION
        numbers = {"N": revision.step, "K": revision.ingredient, "T": tokens}
        if any(numbers[match[0][0]] is None for match in _NUMBERS.finditer(self.text)):
            return None
        name = _NUMBERS.sub(lambda match: f"{numbers[match[0][0]]:0{len(match[0])}d}", self.text)
        spelt = parse(name)
        same = spelt is not None and _place(spelt)[:-1] == _place(revision)[:-1]
        return name if same else None


def spelling(text: str) -> Spelling:
    """Read a spelling as conf/model gives it.

    Raises:
        ConfigError: it is none.
    """
    match = _SPELLING.fullmatch(text)
    if match is None or "N" not in match["text"]:
        raise ConfigError(f"{text!r} spells no revision; write e.g. 'step_NNNN 25..1375'")
    first, last = (None if match[key] is None else int(match[key]) for key in ("first", "last"))
    return Spelling(match["text"], first, last)


def spellings_of(names: Iterable[str]) -> tuple[Spelling, ...]:
    """The spellings of revisions that are known one by one, with the range of their steps."""
    steps: dict[str, list[int]] = {}
    for revision in in_order(names)[0]:
        if revision.step is not None:
            text = re.sub(r"(step_?)\d+", r"\1N", revision.name)
            steps.setdefault(text, []).append(revision.step)
    return tuple(Spelling(text, min(found), max(found)) for text, found in steps.items())


def nearest(
    name: str,
    names: Iterable[str] | None,
    spellings: Sequence[Spelling] = (),
    count: int = 3,
) -> tuple[str, ...]:
    """The existing revisions that a wrong name may mean.

    Args:
        name: the wrong name.
        names: the existing ones; None = not known, so that the spellings must do.
        spellings: of the repository.
        count: how many at most.

    Returns:
        The same step in the repository's spelling first, then the nearest steps of the same phase
        and run, or failing those the names that look alike.
    """
    if names is None:
        return _by_spelling(name, spellings)[:count]
    names = tuple(names)
    wrong = parse(name)
    found: list[str] = []
    if wrong is not None and wrong.step is not None:
        respelt = [spelling.spell(wrong) for spelling in spellings]
        found = [it for it in respelt if it is not None and it in names]
        step = wrong.step
        like = [
            it for it in in_order(names)[0] if (it.phase, *it.line) == (wrong.phase, *wrong.line)
        ]
        distances = {it.name: abs(it.step - step) for it in like if it.step is not None}
        found += sorted(distances, key=lambda it: distances[it])
    found = found or get_close_matches(name, names, n=count, cutoff=0.5)
    return tuple(dict.fromkeys(found))[:count]


def _by_spelling(name: str, spellings: Sequence[Spelling]) -> tuple[str, ...]:
    """The step that a wrong name ends in, as a repository spells it; what looks alike first."""
    steps = re.findall(r"\d+", re.sub(r"-tokens\d+B$", "", name))
    if not steps:
        return ()
    found = [it.near(int(steps[-1])) for it in spellings]
    alike = {it: SequenceMatcher(None, name, it).ratio() for it in found if it is not None}
    return tuple(sorted(alike, key=lambda it: -alike[it]))


def _digits(letters: str) -> str:
    width = len(letters)
    return r"(?:0|[1-9]\d*)" if width == 1 else rf"(?:\d{{{width}}}|[1-9]\d{{{width},}})"


def _place(revision: Revision) -> tuple[bool, int, int, float, int, str]:
    # A name without a phase is of the first: some branches of OLMo 2 lack it.
    return (
        revision.step is None,
        revision.phase or 1,
        revision.ingredient or 0,
        float(revision.lr or 0),
        revision.step or 0,
        revision.name,
    )


def _progress(revisions: Sequence[Revision]) -> list[int]:
    """Steps since the start of training, those of earlier phases included."""
    lengths: dict[int, int] = {}
    for it in revisions:
        lengths[it.phase or 1] = max(lengths.get(it.phase or 1, 0), it.step or 0)
    total = sum(lengths.values())
    before = {phase: sum(n for p, n in lengths.items() if p < phase) for phase in lengths}
    at = [total if it.step is None else before[it.phase or 1] + it.step for it in revisions]
    assert all(a <= b for a, b in pairwise(at)), "revisions are not in the order of training"
    return at
