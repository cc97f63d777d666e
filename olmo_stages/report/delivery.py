"""From sweeps to what people look at: the study, its table and its page, and where these go."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from olmo_stages.document import Study
from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.report.places import folder_of
from olmo_stages.statuses import read_statuses, sweeps_below

_MARK = "result.json"


@dataclass(frozen=True)
class Files:
    """What was written.

    Args:
        table: all measurements, as `olmo_stages.results.load` reads them.
        page: None where none was wanted.
    """

    table: Path
    page: Path | None

    def lines(self) -> list[str]:
        """What to tell people of them."""
        return [f"table: {self.table}", *([f"page: {self.page}"] if self.page else [])]


@dataclass(frozen=True)
class Wanted:
    """What a user asks of a report.

    Args:
        output: where table and page go; None = see `folder_of`.
        format: of the lead table on standard output.
        everything: show also the tables of every job and of each analysis.
        wandb: build also a report and a workspace in W&B.
        page: write the page.
        opened: open it in the browser.
    """

    output: Path | None = None
    format: Literal["text", "json", "csv", "md"] = "text"
    everything: bool = False
    wandb: bool = False
    page: bool = True
    opened: bool = False


def deliver(places: Sequence[Path], wanted: Wanted) -> bool:
    """Make the report of sweeps, show what it says first, and write the rest.

    Args:
        places: folders of sweeps.
        wanted: what is asked of it.

    Raises:
        ConfigError: a place holds no sweep.
        StoreError: the report cannot be written; it has been shown by then.

    Returns:
        Whether all was done; not if something that is wanted in W&B was not saved there.
    """
    sweeps = sweeps_of(places)
    from olmo_stages.report import show, study  # late: mistakes are told without waiting for them

    folder = wanted.output or folder_of(sweeps)
    with _waiting("reading the results"):
        found = study.build(sweeps, wanted.output)
    _show(found, sweeps, wanted)
    try:
        with _waiting("writing table and page"):
            files = write(found, sweeps, folder, with_page=wanted.page)
    except StoreError as error:
        raise StoreError(f"{error}{'' if wanted.output else ' with -o FOLDER'}") from error
    sent, is_saved = _sent(found, folder) if wanted.wandb else ((), True)
    show.show_lines([*sent, *files.lines()], apart=wanted.format != "text")
    if wanted.opened and files.page is not None:
        _open(files.page)
    return is_saved


def deliver_sweep(sweep: Path) -> None:
    """Make the report of a sweep that has just ended, and show what its tables have not told.

    Raises:
        StoreError: the report cannot be written.
    """
    from olmo_stages.report import overview, show, study
    from olmo_stages.tracking.sent import sync_lines

    folder = folder_of([sweep])
    with _waiting("reading the results"):
        found = study.build([sweep])
    overview.show_study(found, ended=True)
    with _waiting("writing table and page"):
        files = write(found, [sweep], folder)
    uploads = [f"W&B, to upload: {line}" for line in sync_lines(found)]
    show.show_lines([*uploads, *files.lines()])


def sweeps_of(places: Sequence[Path]) -> list[Path]:
    """Return the folders of sweeps, each once.

    Raises:
        ConfigError: one does not exist, is that of a job, or holds no sweep; says which would do.
    """
    found: dict[Path, Path] = {}
    for place in places:
        if not place.is_dir():
            state = "is a file" if place.exists() else "does not exist"
            raise ConfigError(f"{place} {state}; give the folder of a sweep, OUTPUTS/sweeps/NAME")
        if not read_statuses(place):
            raise ConfigError(_no_sweep(place))
        found.setdefault(place.resolve(), place)
    return list(found.values())


def write(study: Study, sweeps: Sequence[Path], folder: Path, *, with_page: bool = True) -> Files:
    """Write the table, and the page.

    Args:
        study: what the page says.
        sweeps: what the table is of.
        folder: where both go.
        with_page: whether there shall be a page.

    Raises:
        StoreError: the folder cannot be written.
    """
    # Late: the lead table alone needs none of them.
    from olmo_stages import results
    from olmo_stages.report import page

    table = folder / "measurements.parquet"
    results.save(results.gather(sweeps, [*map(Path, study.assembled)]), table)
    if not with_page:
        return Files(table, None)
    path = folder / "index.html"
    page.write(study, path)
    return Files(table, path)


def _show(study: Study, sweeps: Sequence[Path], wanted: Wanted) -> None:
    from olmo_stages.report import formats, overview, show
    from olmo_stages.report.across import assemble

    if wanted.format != "text":
        sys.stdout.write(formats.formatted(study, wanted.format))
        return
    overview.show_study(study)
    for sweep in sweeps if wanted.everything else ():
        statuses = read_statuses(sweep)
        show.show_sweep(statuses, sweep)
        show.show_across(assemble(sweep, statuses))


def _sent(study: Study, folder: Path) -> tuple[tuple[str, ...], bool]:
    """Save the report in W&B too; what there is to say of it, and whether it was saved."""
    from olmo_stages.tracking import reports  # late: it imports wandb

    with _waiting("saving the report in W&B"):
        saved = reports.save(study, folder)
    return saved.lines, saved.is_whole


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        sys.stderr.write(f"olmo-stages: no browser was found; open {page} yourself\n")


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Show a person that something goes on, and a file nothing."""
    from rich.console import Console

    with Console(file=sys.stderr).status(what):
        yield


def _no_sweep(place: Path) -> str:
    if (place / _MARK).is_file():
        sweep = _sweep_of_job(place)
        which = "the folder of its sweep" if sweep is None else f"its sweep: {sweep}"
        return f"{place} is the result of one job; give {which}"
    if near := sweeps_below(place):
        return f"{place} is no sweep; give one or more of: {near}"
    return f"{place} holds no sweep; give OUTPUTS/sweeps/NAME"


def _sweep_of_job(folder: Path) -> Path | None:
    """The sweep that a job's result came from, where its folder is still there."""
    try:
        config = json.loads((folder / "provenance.json").read_bytes())["config"]
        sweep = folder.resolve().parents[2] / "sweeps" / config["sweep"]
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return None
    return sweep if read_statuses(sweep) else None
