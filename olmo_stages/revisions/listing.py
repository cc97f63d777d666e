"""What `olmo-stages revisions` shows: the revisions of a stage, from the best source in reach."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from olmo_stages.errors import ConfigError
from olmo_stages.revisions import hub, names
from olmo_stages.revisions.names import MAIN, Revision, Spelling
from olmo_stages.revisions.twins import same
from olmo_stages.stages import MINIATURE, Release, release

_LONGEST_COMMAND = 64
_PIPED_WIDTH = 100
_COMMIT_SHOWN = 12
_BILLION = 10**9


@dataclass(frozen=True)
class Listing:
    """Revisions of a stage.

    Args:
        release: the stage.
        origin: `hub`, `cache` (the hub was not in reach) or `miniature`.
        spellings: how its revisions are spelt besides `main`; None = not known.
        revisions: in the order of training.
        commits: commit of each, by name; none for the miniature family.
        others: branches that are no points of training.
        notes: what a reader must know, one sentence each.
    """

    release: Release
    origin: str
    spellings: tuple[Spelling, ...] | None
    revisions: tuple[Revision, ...]
    commits: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def command(self) -> str | None:
        """The line that runs them all; None where there is none."""
        if not self.revisions:
            return None
        chosen = ",".join(it.name for it in self.revisions)
        stage = f"model={self.release.name} size={self.release.size}"
        return f"python run.py -m {stage} model.revision={chosen}"


def revisions_of(name: str, size: str, patience: float = hub.PATIENCE) -> Listing:
    """List the revisions of a stage: those on the hub or, where it is not in reach, in its cache.

    Args:
        name: name of the stage.
        size: one of its sizes.
        patience: seconds that the hub has to answer.

    Raises:
        ConfigError: no such stage, or it was not released in that size.
        ModelError: the hub has no such repository.
    """
    told = release(name, size)
    if told.source == MINIATURE:
        from olmo_stages import miniature

        known = miniature.revisions(name)
        ordered, others = names.in_order(known)
        return Listing(told, "miniature", names.spellings_of(known), ordered, {}, others)
    spellings = None if told.branches is None else tuple(map(names.spelling, told.branches))
    try:
        commits = hub.branches(told.source, patience)
    except hub.NotInReach as error:
        commits, origin = hub.cached(told.source), "cache"
        notes = (f"{error}: only what was downloaded before is listed; {_spelt(spellings)}",)
    else:
        origin, notes = "hub", ()
    ordered, others = names.in_order(commits)
    at = {it.name: commits[it.name] for it in ordered}
    notes += tuple(f"{' and '.join(each)} are the same commit" for each in same(at))
    return Listing(told, origin, spellings, ordered, commits, others, notes)


def choose(listing: Listing, *, match: str | None, log_spaced: int | None) -> Listing:
    """Leave some of the revisions.

    Args:
        listing: all of them.
        match: shell pattern of the names, e.g. `stage1-*`.
        log_spaced: how many, at even distances of log(steps), the first and the last among them.

    Raises:
        ConfigError: no revision matches, or fewer than 2 are asked for.
    """
    revisions, notes = listing.revisions, listing.notes
    if match is not None:
        revisions = tuple(it for it in revisions if fnmatchcase(it.name, match))
        if not revisions and listing.revisions:
            shown = ", ".join(it.name for it in listing.revisions[:3])
            raise ConfigError(f"--match {match!r} fits no revision; there are {shown}, ...")
    if log_spaced is not None:
        revisions, runs = names.one_line(revisions)
        if runs:
            notes += (
                f"{len(runs)} runs were trained side by side ({', '.join(runs)}): chosen from the "
                f"first; for another one: --match '*{runs[-1]}*'",
            )
        revisions = names.log_spaced(revisions, log_spaced)
    return replace(listing, revisions=revisions, notes=notes)


def to_json(listing: Listing) -> str:
    """A listing as JSON; `tokens` are rounded to billions, as the names are."""
    told = listing.release
    rows = [{**asdict(it), "commit": listing.commits.get(it.name)} for it in listing.revisions]
    content: dict[str, Any] = {
        "stage": told.name,
        "size": told.size,
        "source": told.source,
        "from": listing.origin,
        "spellings": None if listing.spellings is None else [*map(str, listing.spellings)],
        "revisions": rows,
        "others": list(listing.others),
        "notes": list(listing.notes),
        "command": listing.command,
    }
    return json.dumps(content, indent=2)


def show(listing: Listing, console: Console | None = None) -> None:
    """Print a listing: a table, the notes, and the line that runs the revisions."""
    console = console or _console()
    told = listing.release
    _line(console, f"{told.name} ({told.size}) · {told.source}")
    if listing.revisions:
        console.print(_table(listing))
    if listing.origin != "cache":
        _line(console, _spelt(listing.spellings))
    if listing.others:
        _line(console, f"left out, no points of training: {', '.join(listing.others)}")
    for note in listing.notes:
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False)
    if len(listing.revisions) > _LONGEST_COMMAND:
        _line(console, "choose some for a run: --log-spaced 10, --match 'PATTERN'")
    elif listing.command is not None:
        _line(console, listing.command)


def _table(listing: Listing) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("revision", no_wrap=True)
    table.add_column("step", justify="right")
    tokens = any(it.tokens is not None for it in listing.revisions)
    if tokens:
        table.add_column("tokens", justify="right")
    if listing.commits:
        table.add_column("commit", no_wrap=True)
    for it in listing.revisions:
        cells = [it.name, "" if it.step is None else f"{it.step:,}"]
        cells += ["" if it.tokens is None else f"{it.tokens // _BILLION:,} B"] if tokens else []
        cells += [listing.commits[it.name][:_COMMIT_SHOWN]] if listing.commits else []
        table.add_row(*map(Text, cells), style="bold" if it.name == MAIN else None)
    return table


def _spelt(spellings: tuple[Spelling, ...] | None) -> str:
    if spellings is None:
        return f"the spelling of its revisions is not known; {MAIN} exists"
    return f"revisions are spelt {', '.join([*map(str, spellings), MAIN])}"


def _console() -> Console:
    # In a file or a pipe rich assumes 80 columns.
    return Console() if Console().is_terminal else Console(width=_PIPED_WIDTH)


def _line(console: Console, text: str) -> None:
    # For copying: never wrapped, never coloured by guess.
    console.print(text, markup=False, highlight=False, soft_wrap=True)
