"""From the folders of sweeps to all that a report says, from files alone."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from olmo_stages.document import Study
from olmo_stages.records import read_statuses
from olmo_stages.report import across, sources
from olmo_stages.report.carried import Carried, Column, columns, lead
from olmo_stages.report.findings import Compared, agreement, unfinished
from olmo_stages.report.headlines import headline_findings, lead_of_all, noted
from olmo_stages.report.parts import Part, parts
from olmo_stages.report.places import folder_of_several
from olmo_stages.report.pool import Pool, pool
from olmo_stages.report.sections import section
from olmo_stages.report.tree import Place, Tree, size_of, tree
from olmo_stages.revisions.twins import Twins, of_jobs


def build(sweeps: Sequence[Path], folder: Path | None = None) -> Study:
    """All that a report of sweeps says.

    What an analysis says of all jobs together is made anew where it is not current, in `folder`.

    Args:
        sweeps: their folders, at least one.
        folder: where assembled results go; None = the folder of the sweep, or, of several,
            OUTPUTS/reports/NAME1+NAME2 of the first one.
    """
    jobs = pool({sweep: read_statuses(sweep) for sweep in sweeps})
    own = sweeps[0] if len(sweeps) == 1 else folder_of_several(sweeps)
    place = (folder or own) / across.FOLDER
    elsewhere = [sweep / across.FOLDER for sweep in sweeps]
    found = parts(across.together(jobs.groups, place, elsewhere), jobs)
    stages = tree(jobs)
    twins = _twins(jobs)
    carried = Carried(stages, columns(found), _pairs(twins))
    compared = _compared(carried)
    question, prediction = sources.asked(sweeps)
    return Study(
        title=" + ".join(sweep.resolve().name for sweep in sweeps),
        asked=_asked(jobs, found, stages),
        question=question,
        prediction=prediction,
        findings=tuple(_findings(jobs, found, compared)),
        nodes=stages.nodes(),
        edges=carried.edges(),
        beside=carried.beside(),
        lead=lead(carried) if carried.on_edges or carried.beside() else lead_of_all(stages, found),
        sections=tuple(
            section(part, _of_section(part, compared), [it.label for it in stages.parents])
            for part in found
        ),
        problems=sources.problems(jobs.undone),
        warnings=tuple(_warnings(jobs, found, twins)),
        commands=sources.commands(sweeps),
        sources=tuple(sources.source(job, part.key) for part in found for job in part.jobs),
        versions=sources.versions(jobs.done),
        made=datetime.datetime.now(datetime.UTC),
        sweeps=tuple(map(str, sweeps)),
        assembled=tuple(str(part.whole.folder) for part in found if part.whole is not None),
    )


def _twins(jobs: Pool) -> tuple[Twins, ...]:
    """Stages whose weights are the same."""
    from huggingface_hub import constants  # late: nothing else here needs it

    cache = Path(constants.HF_HUB_CACHE)
    return of_jobs((job.provenance for job in jobs.done), cache, "among these jobs")


def _pairs(twins: Sequence[Twins]) -> frozenset[frozenset[str]]:
    return frozenset(
        frozenset({one, other})
        for it in twins
        for one in it.names
        for other in it.names
        if one != other
    )


def _compared(carried: Carried) -> Mapping[Column, Sequence[Compared]]:
    """For each number what is known of the edges, then of the stages against their reference."""
    names = carried.tree.names
    found: dict[Column, list[Compared]] = {}
    for index, column in enumerate(carried.columns):
        change = column.given[0][1]
        edges = [
            (f"{names[parent]} → {names[place]}", carried.shifts[place][index])
            for parent, place in carried.tree.joined()
            if column.at(place.size) is not None
        ]
        kinds = [Compared(column.name, change, edges)] if index in carried.on_edges else []
        reference, numbers = carried.far[column]
        if reference:
            told = [(names[place], shift) for place, shift in numbers.items()]
            kinds.append(Compared(f"{column.name} against {reference}", change, told, "stage"))
        if kinds:
            found[column] = kinds
    return found


def _of_section(part: Part, compared: Mapping[Column, Sequence[Compared]]) -> list[str]:
    """All that is found of the numbers of a part; of a size, where there are several."""
    said: list[str] = []
    for column, kinds in compared.items():
        if any(part is it for it, _ in column.given):
            for kind in kinds:
                own = kind.of_section(part.key)
                said += [*own.first(), *own.rest()]
    return said


def _findings(
    jobs: Pool, found: Sequence[Part], compared: Mapping[Column, Sequence[Compared]]
) -> Iterator[str]:
    """What matters most, of all analyses."""
    states = ["damaged" if it.damaged else it.status.state for it in jobs.undone]
    if missing := unfinished(states, len(jobs.done) + len(states)):
        yield missing
    if not jobs.done:
        yield "No job is finished, so nothing is found yet."
    if alike := agreement([kinds[0] for kinds in compared.values()]):
        yield alike
    for column, kinds in compared.items():
        yield from _first(kinds)
        yield from _noted(column)
    for part in found:
        if not part.changes:
            titled = "" if len(found) == 1 else f"{part.title}: "
            yield from (titled + said for said in headline_findings(part)[:1])
    if found and not any(part.changes for part in found):
        yield _without_change(found)


def _without_change(found: Sequence[Part]) -> str:
    """Why the lineage carries no number."""
    names = list(dict.fromkeys(part.analysis for part in found))
    name = "names" if len(names) == 1 else "name"
    return f"The lineage carries no numbers: {_joined(names)} {name} no number of change (CHANGE)."


def _noted(column: Column) -> Iterator[str]:
    """What the jobs behind a number note, once where they have several numbers."""
    for part, change in column.given:
        if change is part.changes[0]:
            alone = len(column.given) == len(part.changes) == 1
            called = column.name if alone else part.title
            yield from (f"{called}: {said[:1].lower()}{said[1:]}" for said in noted(part))


def _first(kinds: Sequence[Compared]) -> Iterator[str]:
    """The kind of comparison of which most is known, and the others where it is not all."""
    ordered = sorted(kinds, key=lambda it: -len(it.known))
    edges = kinds[0]
    shown = [edges] if len(edges.known) == len(edges.shifts) else ordered
    for kind in shown:
        if said := " ".join(kind.first()):
            yield said


def _asked(jobs: Pool, found: Sequence[Part], stages: Tree) -> str:
    """What was run, in a sentence."""
    total = len(jobs.done) + len(jobs.undone)
    plural = "job" if total == 1 else "jobs"
    counted = f"{len(jobs.done)} of {total} {plural} finished"
    counted = counted if jobs.undone else f"{total} {plural}"
    if not found:
        return f"{counted}."
    measured = len(stages.measured)
    return (
        f"{counted}: {_joined(part.analysis for part in found)} of {measured} "
        f"{'stage' if measured == 1 else 'stages'} (size "
        f"{_joined(part.group.key['size'] for part in found)}){_against(jobs, stages)}, on "
        f"{_joined(part.data for part in found)}."
    )


def _against(jobs: Pool, stages: Tree) -> str:
    """What the stages were compared with."""
    compared = [job for job in jobs.done if job.reference]
    if not compared:
        return ""
    all_of_them = len(compared) == len(jobs.done)
    every = "each " if all_of_them and len(stages.measured) > 1 else ""
    references = dict.fromkeys(job.reference for job in compared)
    if len(references) == 1:
        return f", {every}compared with {next(iter(references))}"
    to_parents = all(
        job.provenance["config"].get("reference") == "parent"
        or stages.parents[Place(size_of(job), job.stage)] == Place(size_of(job), job.reference)
        for job in compared
    )
    whom = ("its parent" if all_of_them else "their parents") if to_parents else "other stages"
    return f", {every}compared with {whom}"


def _joined(names: Iterator[str] | Sequence[str]) -> str:
    found = list(dict.fromkeys(names))
    return " and ".join(filter(None, [", ".join(found[:-1]), found[-1]]))


def _warnings(jobs: Pool, found: Sequence[Part], twins: Sequence[Twins]) -> Iterator[str]:
    yield from map(str, twins)
    if mixture := across.mixture(jobs.groups):
        yield mixture
    yield from filter(None, map(sources.mixed, found))
