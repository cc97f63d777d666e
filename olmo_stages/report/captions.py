"""What can be said of figures and numbers from rows alone, whatever the analysis."""

from collections.abc import Sequence

import pandas as pd


def said_of(rows: pd.DataFrame) -> str:
    """What a caption can say from rows alone."""
    if rows.empty:
        return "Drawn by the analysis, which does not say from which of its numbers."
    if "metric" not in rows:
        return "Drawn by the analysis from a table of its result."
    said: list[str] = []
    if size := size_of(rows):
        said.append(f"{size}.")
    if _given(rows, "ci_low"):
        said.append("Intervals are over groups, the units that were resampled.")
    else:
        said.append("The numbers have no interval.")
    if _given(rows, "null"):
        said.append("Null: the median of the null distribution of each number.")
    if _given(rows, "p_max"):
        said.append("p is also given against the null of the maximum over layers.")
    return " ".join(said)


def size_of(rows: pd.DataFrame) -> str:
    """How many examples and groups numbers are of; empty where they do not say."""
    n, groups = (_range(rows[name].tolist()) for name in ("n", "n_groups"))
    if not n:
        return ""
    return f"{n} examples in {groups} groups" if groups else f"{n} examples"


def _given(rows: pd.DataFrame, name: str) -> bool:
    return any(it is not None and it == it for it in rows[name].tolist())


def _range(values: Sequence[int]) -> str:
    known = [it for it in values if it > 0]
    if not known:
        return ""
    least, most = min(known), max(known)
    return str(most) if least == most else f"{least} to {most}"
