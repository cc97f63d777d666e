"""What the figures of trait vectors show, in words: what was resampled, and which null is drawn."""

from olmo_stages.dominant import SAID

_HELD_OUT = "bootstrap intervals over groups"
_WIDENED = (
    f"{_HELD_OUT}, widened because the folds' training groups overlap (Nadeau and Bengio 2003)"
)
_JACKKNIFE = (
    "jackknife intervals over groups (over at most 20 blocks of groups for kinds other than "
    "mean_difference)"
)
_CORRECTED = (
    "corrected: from different groups of examples in the two stages, over what each vector agrees "
    "with itself; a gap where a reliability is not above zero"
)


def of_cosine(variant: str, n_relabelled: int, n_unrelated: int) -> str:
    """Of the cosine by layer beside its nulls.

    Args:
        variant: of the activations.
        n_relabelled: relabellings of the null; 0 = none.
        n_unrelated: unrelated contrasts; 0 = none.
    """
    nulls = [
        f"{n_relabelled} relabellings, the same in both stages" if n_relabelled else "",
        f"{n_unrelated} random splits of the groups, unrelated to the label" if n_unrelated else "",
    ]
    drawn = " and ".join(filter(None, nulls))
    null = (
        f"Dotted, with the central 95 % as a band: median of the null over {drawn}."
        if drawn
        else "No null was run."
    )
    if n_relabelled:
        null += " p: how often relabelling gives a cosine as high, one-sided."
    return (
        f"Cosine between the two stages' vectors by layer, from all examples; {_CORRECTED}. "
        f"{SAID[variant]} Bands: 95 % {_JACKKNIFE}; where a vector is no more than noise "
        f"the cosine has none. {null}"
    )


def of_distance() -> str:
    """Of 1 - cosine by layer."""
    return (
        "1 - cosine on a logarithmic axis, so that the ends of intervals change places; what is "
        f"nearer to 1 than 1e-7 is drawn there. {SAID['raw']} Bands: 95 % {_JACKKNIFE}; of nulls "
        "(dotted: median) their central 95 %."
    )


def of_reliability() -> str:
    """Of the reliability by layer."""
    return (
        "How far a stage's vector agrees with itself over other groups of examples: the share of "
        "signal in its squared length, or the agreement of vectors of halves of the groups, "
        f"stepped up. Bands: 95 % {_JACKKNIFE}. Thin line: 0, nothing but noise. No null was run."
    )


def of_transfer(n_resamples: int) -> str:
    """Of the AUROC of vectors on held-out groups.

    Args:
        n_resamples: of the groups.
    """
    return (
        "AUROC of each stage's vector on held-out groups of both stages; vectors are cross-fitted "
        f"by group, with the same folds in both. Bands: 95 % {_WIDENED}, {n_resamples} resamples. "
        "Thin line: chance. No null was run."
    )


def of_traits(*, tested: bool) -> str:
    """Of the cosines between the vectors of traits.

    Args:
        tested: whether there is a p.
    """
    p = (
        "p: labels shuffled in each of the two traits, two-sided; p over layers: against the most "
        "extreme layer."
        if tested
        else "No null was run."
    )
    return f"Cosine between the vectors of two traits in one stage. No interval. {p}"


def of_curve(scale: str, *, relabelled: bool, unrelated: bool) -> str:
    """Of cosines along training.

    Args:
        scale: of the activations, `raw` or `standardised`.
        relabelled: whether that null is drawn.
        unrelated: whether that one is.
    """
    nulls = ["shuffled labels, the same in both stages"] * relabelled
    nulls += ["random splits of the groups, unrelated to the label"] * unrelated
    drawn = " and of ".join(nulls)
    return (
        "Cosine of each stage's own vector with the reference's, from all examples; "
        f"{_CORRECTED}. {SAID[scale]} Bands, and bars of stages on their own: 95 % {_JACKKNIFE}. "
        + (f"Wide ranges: central 95 % of the cosines of {drawn}. " if drawn else "")
        + "Dotted curve: reliability of the stage's own vector. Star: the reference, 1 by "
        "definition."
    )


def of_stages(*, null: bool) -> str:
    """Of the cosines of all stages by layer.

    Args:
        null: whether shuffled labels are drawn.
    """
    said = (
        "Dotted: median over relabellings, the same in both stages. p: how often relabelling gives "
        "a cosine as high, one-sided; p over layers: as high in any of them."
        if null
        else "No null was run."
    )
    return (
        "Cosine of each stage's vector with its reference's by layer, from all examples, not "
        f"corrected for noise. {SAID['raw']} Whiskers: 95 % {_JACKKNIFE}. {said}"
    )


def of_layers() -> str:
    """Of corrected cosines along training, all layers."""
    return (
        "Cosine of each stage's own vector with the reference's by layer, blue first to amber "
        f"last; {_CORRECTED}. {SAID['raw']} Intervals are in the hover text: 95 % {_JACKKNIFE}. "
        "Star: the reference, 1 by definition. No null is drawn."
    )


def of_separation() -> str:
    """Of the separation along training."""
    return (
        "Distance between the means of the held-out classes, in within-class standard deviations, "
        "along the reference's vector and along each stage's own, both cross-fitted by group. "
        f"Bands and bars: 95 % {_WIDENED}. No null was run."
    )


def of_shift() -> str:
    """Of the shift along training."""
    return (
        "How far the mean of all examples moved from the reference to the stage along the "
        "reference's vector; 1 = the distance between the reference's classes, 0 = not moved. "
        f"Bands and bars: 95 % {_WIDENED}. No null was run."
    )


def of_projection(n_resamples: int, *, fitted: bool, labelled: bool) -> str:
    """Of mean scores by layer.

    Args:
        n_resamples: of the groups.
        fitted: whether the vector is cross-fitted on the same data.
        labelled: whether the texts have labels.
    """
    whose = "of label 1 and of label 0" if labelled else "of all texts"
    vector = "cross-fitted by group" if fitted else "that was given"
    return (
        f"Mean score {whose} along the vector {vector}. Bands: 95 % {_bands(n_resamples, fitted)}. "
        "No null was run."
    )


def of_auroc(n_resamples: int, n_relabelled: int, *, fitted: bool) -> str:
    """Of the AUROC of scores by layer.

    Args:
        n_resamples: of the groups.
        n_relabelled: relabellings of the null; 0 = none.
        fitted: whether the vector is cross-fitted on the same data.
    """
    how = "vectors refitted to" if fitted else "the same scores under"
    null = (
        f"Dotted: median of {how} {n_relabelled} relabellings that exchange labels of whole "
        "groups; p one-sided."
        if n_relabelled
        else "No null was run."
    )
    return (
        f"Do texts of label 1 score above texts of label 0? Bands: 95 % "
        f"{_bands(n_resamples, fitted)}. {null} Thin line: chance."
    )


def of_parts(n_resamples: int, *, fitted: bool) -> str:
    """Of mean scores of the parts of prompts and responses.

    Args:
        n_resamples: of the groups.
        fitted: whether the vector is cross-fitted on the same data.
    """
    return (
        "Mean over each example's tokens of a part, then over the examples that have it. Bands: "
        f"95 % {_bands(n_resamples, fitted)}. No null was run."
    )


def of_tokens(*, fitted: bool) -> str:
    """Of one example token by token.

    Args:
        fitted: whether the vector is cross-fitted on the same data.
    """
    unseen = ", along a vector that never saw its group" if fitted else ""
    return (
        f"Score of every token of one example at every layer{unseen}. One example: no interval, no "
        "null. Extreme tokens share the colours of the limits; lines part the parts of the prompt."
    )


def _bands(n_resamples: int, fitted: bool) -> str:  # noqa: FBT001  (of this module only)
    return f"{_WIDENED if fitted else _HELD_OUT}, {n_resamples} resamples"
