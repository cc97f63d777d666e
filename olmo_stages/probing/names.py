"""Names of the metrics and variants of probes, which the analysis and its parts share."""

PROBE = "probe"
"""Variant of what is said of the probes themselves, by layer."""

REFERENCE = "reference"
"""Variant of what is said of the reference's own probes, by layer."""

BEST_LAYER = "best_layer"
"""Variant of the layer that each fold's training set chose."""

DIFFERENCE = "auroc_difference"
"""Metric of a stage less its reference."""

DIFFERENCE_STAGES = f"{DIFFERENCE}_stages"
"""Metric of a stage less another of its sweep."""
