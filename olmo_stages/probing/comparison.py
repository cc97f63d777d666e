"""A stage beside its reference: paired differences, and each one's probes on the other."""

from dataclasses import replace

from olmo_stages.heldout import Estimate, HeldOut, Where
from olmo_stages.nested import Probes
from olmo_stages.probing.design import Side
from olmo_stages.probing.names import BEST_LAYER, DIFFERENCE, PROBE, REFERENCE
from olmo_stages.types import Activations, Measurement


def comparison(
    held_out: HeldOut, stage: Side, reference: Side, where: Where
) -> tuple[list[Measurement], list[str]]:
    """What is measured against a reference.

    Args:
        held_out: of both.
        stage: what was read in the stage.
        reference: what was read in its reference.
        where: labels of both, and the stage's layers.

    Returns:
        Rows, and what must be known of them.
    """
    ours, theirs = stage.acts, reference.acts
    nested = stage.nested - reference.nested
    said = _about_pair(ours, theirs)
    if theirs.layers != ours.layers:
        label = theirs.stage.label
        said.append(f"{label} has other layers: no difference or transfer by layer")
        return differences(where, nested, None), said
    rows = differences(where, nested, stage.auroc - reference.auroc)
    rows += where.rows("auroc", REFERENCE, reference.auroc)
    rows += where.rows("balanced_accuracy", REFERENCE, reference.accuracy)
    widths = ours.values.shape[2], theirs.values.shape[2]
    if widths[0] != widths[1]:
        return rows, [*said, f"d_model {widths[0]} and {widths[1]}: no transfer"]
    sides = {"stage": stage, "reference": reference}
    for source, fitted in sides.items():
        for target, read in sides.items():
            rows += _transfer(held_out, where, f"{source}->{target}", fitted.probes, read.acts)
    return rows, said


def differences(
    where: Where, nested: Estimate, by_layer: Estimate | None, metric: str = DIFFERENCE
) -> list[Measurement]:
    """Rows of the paired difference of two models, of their best layers first.

    Args:
        where: labels of both, and their layers.
        nested: difference of the AUROC of the layers that the training sets chose.
        by_layer: difference of the AUROC by layer; None where the layers are not the same.
        metric: of the rows.
    """
    whole = replace(where, layers=(None,), layer_types=("",))
    rows = whole.rows(metric, BEST_LAYER, nested, note=_notes(nested))
    if by_layer is not None:
        rows += where.rows(metric, PROBE, by_layer, note=_notes(by_layer))
    return rows


def _notes(difference: Estimate) -> list[str]:
    unseen = (
        f"both at their bound, so no interval: {difference.n_rarer} groups may have missed a "
        f"difference of {difference.unseen:.2f}"
    )
    constant = "the same in every resample, so no interval"
    both = zip(difference.saturated, difference.constant, strict=True)
    return [unseen if at_bound else constant if same else "" for at_bound, same in both]


def _transfer(
    held_out: HeldOut, where: Where, variant: str, probes: Probes, target: Activations
) -> list[Measurement]:
    """Score one side's probes on the other side's activations of the same held-out examples."""
    scores = probes.score(target.values)
    own = probes.score(target.values, centre_on_target=True)
    rows = where.rows("transfer_auroc", variant, held_out.auroc(scores))
    for threshold, at in (("source", scores), ("own", own)):
        accuracy = held_out.balanced_accuracy(at)
        rows += where.rows("transfer_balanced_accuracy", f"{variant}:{threshold}", accuracy)
    return rows


def _about_pair(ours: Activations, theirs: Activations) -> list[str]:
    pair = f"{ours.stage.label} and {theirs.stage.label}"
    said: list[str] = []
    if theirs.model_digest == ours.model_digest:
        said.append(f"{pair} have the same weights: every difference is exactly 0")
    differ = sum(a != b for a, b in zip(ours.token_ids, theirs.token_ids, strict=True))
    if differ:
        n = len(ours.token_ids)
        said.append(f"{pair} see different token ids in {differ} of {n} examples")
    return said
