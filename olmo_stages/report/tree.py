"""The lineage that the stages of a study are part of, made whole from the catalogue.

A stage is a label in a size: the same label in two sizes is two stages. Revisions of a stage are a
chain in the order of training, between the stage's parent and the stage; they are a branch of their
own where the stage itself was compared with its parent, since that is what its edge is asked for.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from olmo_stages.document import Node
from olmo_stages.errors import ConfigError
from olmo_stages.expected import told
from olmo_stages.lineage import lineage_order
from olmo_stages.report.kept import Done
from olmo_stages.report.pool import Pool, Undone, analysis_of
from olmo_stages.revisions.axis import training_axis
from olmo_stages.revisions.names import MAIN
from olmo_stages.soups import soup
from olmo_stages.stages import catalogue

CUSTOM = "custom"
"""Size of a checkpoint of a user's own that is part of no lineage."""

_RANDOM = " (random)"
_SOUP = "olmo_stages.soups.soup"

Specs = Mapping[str, Mapping[str, Any]]
"""The catalogue."""


class Place(NamedTuple):
    """A stage of a tree: its label, and the size of the lineage that it is part of."""

    size: str
    label: str


@dataclass(frozen=True, eq=False)
class Tree:
    """The stages of a study.

    Args:
        parents: of each stage the one above it, None for a root; parents before children.
        names: how each stage is called where all of them are seen together.
        measured: stages of finished jobs.
        undone: jobs without a result, by the stage that they are about.
        states: what is not done about a stage, one text a job.
    """

    parents: Mapping[Place, Place | None]
    names: Mapping[Place, str]
    measured: frozenset[Place]
    undone: Mapping[Place, Sequence[Undone]]
    states: Mapping[Place, Sequence[str]] = field(default_factory=dict)

    def nodes(self) -> tuple[Node, ...]:
        """Return the stages as a report shows them."""
        return tuple(
            Node(
                label=self.names[place],
                parent="" if parent is None else self.names[parent],
                measured=place in self.measured,
                failed=place in self.undone and place not in self.measured,
                size=place.size,
            )
            for place, parent in self.parents.items()
        )

    @property
    def asked(self) -> frozenset[Place]:
        """Stages that a job is about, and those above them that join them."""
        found = set(self.measured | self.undone.keys())
        for place in tuple(found):
            above = self.parents[place]
            while above is not None:
                found.add(above)
                above = self.parents[above]
        return frozenset(found)

    def joined(self) -> Iterator[tuple[Place, Place]]:
        """Parents and children, in the order of the stages."""
        for place, parent in self.parents.items():
            if parent is not None:
                yield parent, place


def size_of(job: Done) -> str:
    """The size of the lineage that a job's stage is part of."""
    sides = [it for it in (job.about["stage"], job.about["reference"]) if it is not None]
    sizes = [it["size"] for it in sides if it["size"] != CUSTOM]
    if sizes:
        return sizes[0]
    return str(job.model.get("size", CUSTOM)) if job.model.get("parent") else CUSTOM


def tree(pool: Pool) -> Tree:
    """The stages of finished and unfinished jobs, what they were compared with, and all above."""
    specs = catalogue()
    above = _Above(specs)
    measured: set[Place] = set()
    found: dict[Place, None] = {}
    for job in pool.done:
        size = size_of(job)
        own = Place(size, job.stage)
        measured.add(own)
        found[own] = None
        above.learn(own, job)
        if job.reference:
            found.setdefault(Place(size, job.reference))
    undone: dict[Place, list[Undone]] = {}
    for it in pool.undone:
        if (place := _place_of(it, found)) is not None:
            undone.setdefault(place, []).append(it)
            found.setdefault(place)
    asked = [it for it in found if it in measured or it in undone]
    direct = {place: parent for it in asked for place, parent in above.line(it)}
    for it in found:
        # What is above a stage that others were only compared with is needed to join it to them.
        line = dict(above.line(it))
        if it not in direct:
            direct |= line if line.keys() & direct.keys() else {it: None}
    compared = {(Place(size_of(job), job.stage), job.reference) for job in pool.done}
    parents = _chained(direct, compared)
    ordered = {place: parents[place] for place in _descending(parents)}
    states = {place: [_state(pool, it) for it in left] for place, left in undone.items()}
    return Tree(ordered, _names(ordered), frozenset(measured), undone, states)


def _state(pool: Pool, undone: Undone) -> str:
    """Which job of a stage it is, and how it ended."""
    analysis = analysis_of(undone)
    apart = pool.told_apart(analysis, undone.settings)
    options = ", ".join(f"{name}={value}" for name, value in apart.items())
    state = "damaged" if undone.damaged else undone.status.state
    return " ".join(filter(None, [analysis, f"({options})" if options else "", state]))


@dataclass(frozen=True, eq=False)
class _Above:
    """Who was trained from whom, as the jobs themselves say it and else the catalogue."""

    specs: Specs
    known: dict[Place, str | None] = field(default_factory=dict)

    def learn(self, place: Place, job: Done) -> None:
        """Note the parent of a job's stage, where its record tells of one."""
        config = job.provenance.get("config", {})
        if config.get("reference") == "parent" and job.reference:
            self.known[place] = job.reference
        elif "parent" in job.model:
            given = _soups_parent(job.model) if _is_soup(job.model) else job.model["parent"]
            self.known.setdefault(place, self._label(given, place.size))
        elif _name(place.label) not in self.specs and job.reference:
            self.known.setdefault(place, job.reference)  # all that is known of it

    def line(self, place: Place) -> Iterator[tuple[Place, Place | None]]:
        """A stage and all above it, each with its parent."""
        seen: set[Place] = set()
        current: Place | None = place
        while current is not None and current not in seen:
            seen.add(current)
            label = self.parent(current)
            parent = None if label is None else Place(current.size, label)
            yield current, None if parent in seen else parent
            current = parent

    def parent(self, place: Place) -> str | None:
        """Label of what a stage was trained from; None for a root and a random initialisation."""
        if place.label.endswith(_RANDOM):
            return None
        if place in self.known:
            return self.known[place]
        spec = self.specs.get(_name(place.label), {})
        return self._label(spec.get("parent"), place.size)

    def _label(self, given: object, size: str) -> str | None:
        """Label of a parent as a configuration gives it: `NAME[@REVISION]`, or one a size."""
        spelt = given.get(size) if isinstance(given, Mapping) else given
        if not isinstance(spelt, str) or not spelt:
            return None
        name, _, revision = spelt.partition("@")
        revision = revision or self.specs.get(name, {}).get("revision", MAIN)
        return name if revision == MAIN else f"{name}@{revision}"


def _is_soup(model: Mapping[str, Any]) -> bool:
    return model.get("_target_") == _SOUP


def _soups_parent(model: Mapping[str, Any]) -> str | None:
    """What an average of checkpoints is compared with, as it was when it was made."""
    options = {key: value for key, value in model.items() if key != "_target_"}
    try:
        parent = soup(**options).parent
    except (ConfigError, TypeError):  # a member that this process does not know
        given = model.get("parent")
        return given if isinstance(given, str) else None
    return None if parent is None else parent.label


def _place_of(undone: Undone, found: Iterable[Place]) -> Place | None:
    """The stage that a job without a result is about; None where it cannot be told."""
    status = undone.status
    about = {**told(status.overrides), **status.about}
    if not about.get("stage"):
        return None
    size = about.get("size", "")
    sizes = list(dict.fromkeys(place.size for place in found))
    if size in {"", CUSTOM} and size not in sizes:
        same = [place.size for place in found if place.label == about["stage"]]
        size = next(iter([*same, *sizes]), size)
    return Place(size, about["stage"])


def _name(label: str) -> str:
    return label.removesuffix(_RANDOM).partition("@")[0]


def _chained(
    direct: Mapping[Place, Place | None], compared: Collection[tuple[Place, str]]
) -> dict[Place, Place | None]:
    """Parents, with revisions of a stage one after another in the order of training.

    A stage that was itself compared with its parent stays below it. Where runs that were trained
    side by side meet, e.g. in their merge, none is the parent of the other: all come from the
    parent of the stage.
    """
    parents = dict(direct)
    for size in dict.fromkeys(place.size for place in direct):
        labels = [place.label for place in direct if place.size == size]
        before: dict[str, list[str]] = {}
        for one, other in training_axis(labels).joins:
            if _name(one) == _name(other):
                before.setdefault(other, []).append(one)
        for label, earlier in before.items():
            place = Place(size, label)
            parent = direct[place]
            is_measured = parent is not None and (place, parent.label) in compared
            if len(earlier) == 1 and not (is_measured and "@" not in label):
                parents[place] = Place(size, earlier[0])
    return parents


def _descending(parents: Mapping[Place, Place | None]) -> list[Place]:
    """Every stage below its parent, siblings in the order of the lineage; sizes apart."""
    place = lineage_order()
    sizes = list(dict.fromkeys(it.size for it in parents))
    children: dict[Place | None, list[Place]] = {}
    for it in sorted(parents, key=lambda it: (sizes.index(it.size), place(it.label))):
        children.setdefault(parents[it], []).append(it)

    def below(above: Place | None) -> Iterator[Place]:
        for it in children.get(above, []):
            yield it
            yield from below(it)

    return list(below(None))


def _names(places: Iterable[Place]) -> dict[Place, str]:
    """Labels, with their size where there are stages of several."""
    found = list(places)
    several = len({place.size for place in found}) > 1
    return {it: f"{it.label} ({it.size})" if several else it.label for it in found}
