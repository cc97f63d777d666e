"""What the figures of probes show, in words: what was resampled, and which null is drawn."""

_INTERVALS = (
    "95 % bootstrap intervals over {} groups, widened because folds share training examples"
)


def of_curves(n_groups: int, *, null: bool) -> str:
    """Of one stage by layer.

    Args:
        n_groups: independent groups.
        null: whether there is one.
    """
    return (
        "AUROC of cross-validated probes on held-out groups, beside baselines; level lines are "
        f"not about one layer. Bands: {_INTERVALS.format(n_groups)}. {_null(null)}"
    )


def of_all_stages(n_groups: int, *, null: bool) -> str:
    """Of every stage by layer.

    Args:
        n_groups: independent groups.
        null: whether there is one.
    """
    return (
        "AUROC of cross-validated probes on held-out groups, every stage on the same examples in "
        f"the same folds. Whiskers: {_INTERVALS.format(n_groups)}; whether two stages differ is "
        f"told by their paired difference, not by their overlap. {_null(null)}"
    )


def of_differences(n_groups: int, n_pairs: int) -> str:
    """Of stages against stages.

    Args:
        n_groups: independent groups.
        n_pairs: of stages.
    """
    return (
        "AUROC of the row's stage less that of the column's, on the same held-out examples: of the "
        "layers that the training sets chose, and in the menu of every layer; both triangles are "
        "the same but for the sign. Intervals are in the hover text: paired "
        f"{_INTERVALS.format(n_groups)}, not corrected for {n_pairs} pairs. No null was run."
    )


def _null(run: bool) -> str:  # noqa: FBT001  (of this module only)
    return (
        "Dotted: median of probes fitted to labels exchanged between groups."
        if run
        else "No null was run."
    )
