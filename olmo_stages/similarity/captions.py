"""What the figures of similarities show, in words: what was resampled, and which null is drawn."""

from olmo_stages.dominant import SAID, Variant

_PERMUTED = "permutations of the rows of one side, whole groups changing places"
_JACKKNIFE = "95 % jackknife intervals over groups"


def of_map(title: str, variant: Variant, n: int, n_groups: int, n_permutations: int) -> str:
    """Of layers against layers.

    Args:
        title: of the measure.
        variant: of the activations.
        n: rows that are compared.
        n_groups: independent groups among them.
        n_permutations: of the null; 0 = none.
    """
    null = (
        f"Null and p: {n_permutations} {_PERMUTED}; p over the map: against the largest score of "
        "each permutation."
        if n_permutations
        else "No null was run."
    )
    return (
        f"{title} of every layer with every layer, over {n} rows in {n_groups} groups. "
        f"{SAID[variant]} Intervals are in the hover text: {_JACKKNIFE}. {null}"
    )


def of_diagonal(
    title: str, n_groups: int, n_resamples: int, n_permutations: int, n_halves: int
) -> str:
    """Of each layer against the same layer.

    Args:
        title: of the measure.
        n_groups: independent groups.
        n_resamples: of these.
        n_permutations: of the null; 0 = none.
        n_halves: pairs of halves of the ceiling; 0 = none.
    """
    null = (
        f"Dotted: median over {n_permutations} {_PERMUTED}. "
        if n_permutations
        else "No null is drawn. "
    )
    ceiling = (
        f" Ceiling: one half of the stage's own dimensions against the other, mean of {n_halves} "
        "random halvings; scores may lie above it."
        if n_halves
        else ""
    )
    return (
        f"{title} of each layer with the same layer of the other side. Bands: 95 % bootstrap "
        f"intervals over {n_groups} groups, {n_resamples} resamples; of floor and ceiling "
        f"{_JACKKNIFE}. {null}Floor: the stage against a randomly initialised model of its shape."
        f"{ceiling}"
    )


def of_distance(title: str, n_groups: int) -> str:
    """Of 1 - score by layer.

    Args:
        title: of the measure.
        n_groups: independent groups.
    """
    return (
        f"1 - {title} on a logarithmic axis, so that the ends of intervals change places; what is "
        "nearer to 1 than 1e-7 is drawn there, and what is exactly 1 not at all. Bands: 95 % "
        f"bootstrap intervals over {n_groups} groups. No null is drawn."
    )


def of_stages(title: str, variant: Variant, n_groups: int) -> str:
    """Of stages against stages, layer by layer.

    Args:
        title: of the measure.
        variant: of the activations.
        n_groups: independent groups.
    """
    return (
        f"{title} between all stages, the same layer of both. {SAID[variant]} The menu "
        "has the mean over layers and every layer, and both triangles are the same. From pair "
        f"tables that the jobs kept, in 16 bits. Intervals are in the hover text: {_JACKKNIFE} "
        f"({n_groups}). No null was run."
    )


def of_best_match(title: str, variant: Variant, n_groups: int) -> str:
    """Of best-matching layers between stages.

    Args:
        title: of the measure.
        variant: of the activations.
        n_groups: independent groups.
    """
    return (
        f"For each layer of the row's stage, its largest {title} with any layer of the column's; "
        f"the hover text has the layer. {SAID[variant]} Intervals there: {_JACKKNIFE} "
        f"({n_groups}), of that pair of layers: that it is the best of several is not in them. "
        "No null was run here."
    )


def of_curves(title: str, n_groups: int, *, null: bool) -> str:
    """Of every stage against its reference by layer.

    Args:
        title: of the measure.
        n_groups: independent groups.
        null: whether there is one.
    """
    said = f"Dotted: median over {_PERMUTED}." if null else "No null was run."
    return (
        f"{title} of each stage with its reference, layer by layer. {SAID['raw']} Whiskers: 95 % "
        f"bootstrap intervals over {n_groups} groups. {said}"
    )
