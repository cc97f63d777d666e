"""What a reader must know of where a vector comes from before believing scores along it."""

from collections.abc import Iterator, Sequence

from olmo_stages.data.dataset import Dataset
from olmo_stages.errors import ConfigError
from olmo_stages.estimates import unequal_groups
from olmo_stages.stages import lookup
from olmo_stages.types import Activations, Example, Stage
from olmo_stages.vectors.caveats import FEWEST_GROUPS, related
from olmo_stages.vectors.files import TraitVector
from olmo_stages.vectors.scores import has_units
from olmo_stages.vectors.tasks import Task, fewest_of

_MEANINGLESS = (
    "separately trained models have coordinates of their own, so scores along it mean nothing"
)


def of_given(
    vector: TraitVector, stage: Stage, acts: Activations, examples: Sequence[Example]
) -> Iterator[str]:
    """What must be said of scores along a given vector, one sentence each.

    Args:
        vector: the vector.
        stage: whose examples are scored.
        acts: its activations; values are not looked at.
        examples: the examples, with labels or without.
    """
    labelled = any(it.label is not None for it in examples)
    yield _relation(vector, stage, acts)
    read, source = (acts.site, acts.position), (vector.site, vector.position)
    if read != source:
        yield (
            f"the vector was read at {source[0]}, {source[1]}, and is applied at {read[0]}, "
            f"{read[1]}: its units are those of its own position"
        )
    if not has_units(vector):
        yield (
            "the vector does not say where the classes of its own data are: scores are raw, in the "
            "scale of the activations"
        )
    digest = vector.told("data_digest")
    if digest and not labelled:
        yield (
            "whether the vector is from these very texts is not known: without labels they are "
            "not recognised"
        )
    elif digest and digest == Dataset("", tuple(examples), mix_formats=True).digest:
        yield (
            f"the vector is from these very examples ({vector.told('data') or 'the same data'}): "
            "nothing here is held out; give other data, or analysis.vector=null to cross-fit"
        )
    traits = sorted({it.trait for it in examples} - {"", vector.trait})
    if traits:
        what = "labels" if labelled else "texts"
        yield f"the vector is of {vector.trait!r}, the {what} are of {', '.join(map(repr, traits))}"


def of_tasks(tasks: Sequence[Task], n_folds: int, n_permutations: int) -> Iterator[str]:
    """What must be said of the groups, the folds and the null of each trait.

    Args:
        tasks: the traits.
        n_folds: folds that were asked for.
        n_permutations: relabellings that were asked for.
    """
    for task in tasks:
        prefix = f"{task.trait}: " if len(tasks) > 1 else ""
        yield from (prefix + sentence for sentence in _of_task(task, n_folds, n_permutations))
    if not all(task.labelled for task in tasks):
        yield (
            "the data have no labels: no classes, separation or AUROC, and no null; means are over "
            "all texts"
        )
    elif not n_permutations:
        yield "no permutation null was run: analysis.n_permutations=0"


def _of_task(task: Task, n_folds: int, n_permutations: int) -> Iterator[str]:
    if not task.labelled:
        n_groups = len(set(task.sample.groups))
        if n_groups < FEWEST_GROUPS:
            yield f"{n_groups} groups; intervals over fewer than {FEWEST_GROUPS} are rough"
        return
    labels, groups = task.held_out.labels, task.held_out.groups
    fewest = fewest_of(labels, groups)
    if task.fitted and task.n_folds < n_folds:
        yield f"{task.n_folds} folds instead of {n_folds}: a class has {fewest} groups"
    if fewest < FEWEST_GROUPS:
        yield (
            f"a class occurs in {fewest} groups; intervals over fewer than {FEWEST_GROUPS} are "
            "rough"
        )
    if not n_permutations:
        return
    if task.relabelled is None:
        yield (
            "no permutation p: groups of one label exchange it with groups of the same size, and "
            "here no such group has the other label"
        )
    elif unequal := unequal_groups(labels, groups):
        yield (
            f"{unequal} groups hold both labels unequally often; their examples were permuted one "
            "by one, so p is too small if they are paraphrases of one another"
        )


def of_pair(stage: Stage, reference: Stage, acts: Activations, other: Activations) -> Iterator[str]:
    """What must be said of a stage beside its reference."""
    pair = f"{stage.label} and {reference.label}"
    if acts.model_digest == other.model_digest:
        yield f"{pair} have the same weights: every difference is exactly 0"
    differ = sum(a != b for a, b in zip(acts.token_ids, other.token_ids, strict=True))
    if differ:
        yield f"{pair} see different token ids in {differ} of {len(acts.ids)} examples"
    if not related(stage, reference):
        yield f"{pair} share no known ancestor: {_MEANINGLESS}"


def _relation(vector: TraitVector, stage: Stage, acts: Activations) -> str:
    name = vector.told("stage") or "an unknown stage"
    said = f"the vector of {vector.trait!r} is of {name}"
    weights = vector.told("weights")
    if weights and weights == acts.model_digest:
        return f"{said}: the same weights as {stage.label}"
    origin = _stage_of(vector)
    if origin is None:
        return f"{said}, of which it is not known whether it is of the lineage of {stage.label}"
    if related(stage, origin):
        return f"{said}, of the lineage of {stage.label}"
    return f"{said}, which shares no known ancestor with {stage.label}: {_MEANINGLESS}"


def _stage_of(vector: TraitVector) -> Stage | None:
    """The stage that a vector says it is from, where the catalogue knows it."""
    if vector.told("random_init"):
        return None
    try:
        found = lookup(vector.told("name"), vector.told("size"))
    except ConfigError:
        return None
    return found if found.source == vector.told("source") else None
