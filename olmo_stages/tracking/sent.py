"""What was sent about the jobs of a study, and the line that uploads what waits on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmo_stages.document import Source, Study
from olmo_stages.errors import StoreError
from olmo_stages.records import mark_digest, read_mark
from olmo_stages.tracking.notes import OFFLINE, read_note, sync_line


@dataclass(frozen=True)
class Sent:
    """The run of one job.

    Args:
        source: the job.
        run_id: id of the run.
        project: of the run.
        entity: of the run; empty = the default of whoever uploads it.
        group: of the run; empty where it has none or it is not known.
        url: of a run that was recorded online, else empty.
        place: folder of the run on this machine; None where it is not here.
        waits: whether it is here and was not uploaded.
    """

    source: Source
    run_id: str
    project: str
    entity: str
    group: str
    url: str
    place: Path | None
    waits: bool

    @property
    def is_uploaded(self) -> bool:
        """Whether it is known to be on the server."""
        return bool(self.url) or (self.place is not None and not self.waits)


def sent_of(study: Study) -> tuple[Sent, ...]:
    """Return the runs of a study's jobs, each once, in the order of its sources.

    A run of another result of the same job, which was redone since, is left out.
    """
    found = (_sent(source) for source in study.sources)
    return tuple({it.run_id: it for it in found if it is not None}.values())


def sync_lines(study: Study, entity: str = "", project: str = "") -> tuple[str, ...]:
    """Return what uploads the runs of a study that wait on this machine.

    Args:
        study: whose jobs.
        entity: W&B user or team that shall get them; empty = as they were recorded.
        project: project that shall get them; empty = as they were recorded.

    Returns:
        Commands for a shell, their paths relative to the current folder where they lie in it;
        none if nothing waits.
    """
    waiting = [it for it in sent_of(study) if it.waits and it.place is not None]
    options: list[str] = []
    if entity and any(it.entity != entity for it in waiting):
        options += ["-e", entity]
    if project and any(it.project != project for it in waiting):
        options += ["-p", project]
    places = _together([it.place for it in waiting if it.place is not None])
    return (sync_line(places, options),) if places else ()


def run_folder(place: Path, folder: Path) -> Path | None:
    """Where an offline run lies; beside the results where these were copied or moved with it.

    Args:
        place: where it was recorded.
        folder: of the job's result.
    """
    outputs = folder.absolute().parents[2:3]
    beside = [it / "wandb" / place.name for it in outputs]
    return next((it for it in (*beside, place) if it.is_dir()), None)


def _sent(source: Source) -> Sent | None:
    folder = Path(source.folder)
    note = read_note(folder)
    if note is None or not note.get("run_id") or note.get("result") != _digest(folder):
        return None
    place = None if note["url"] else run_folder(Path(note["place"]), folder)
    return Sent(
        source,
        note["run_id"],
        note.get("project") or "",
        note.get("entity") or "",
        note.get("group") or "",
        note["url"] or "",
        place,
        place is not None and _waits(place),
    )


def _digest(folder: Path) -> str | None:
    """Return the digest of the result in a folder; None where there is none any more."""
    try:
        return mark_digest(read_mark(folder))
    except StoreError:
        return None


def _waits(place: Path) -> bool:
    return not any(place.glob("*.synced"))


def _together(places: Sequence[Path]) -> list[Path]:
    """Name all runs of a folder by a pattern, where no others are there.

    Not by the folder: its link to the latest run would upload that one twice.
    """
    named: list[Path] = []
    for root in dict.fromkeys(place.parent for place in places):
        own = [place for place in places if place.parent == root]
        alone = len(own) > 1 and set(root.glob(OFFLINE)) <= set(own)
        named += [root / OFFLINE] if alone else own
    return named
