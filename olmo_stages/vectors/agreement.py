"""How well the vectors of two stages agree, from the inner products of their parts."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from olmo_stages.vectors.cells import Cells, Moments, remaining
from olmo_stages.vectors.jackknife import Interval, jackknifed
from olmo_stages.vectors.layer import Centred


@dataclass(frozen=True, eq=False)
class Agreement:
    """Values with all groups first, then without each group or block of groups.

    Args:
        cosine: of the two vectors, NaN without a reference.
        corrected: the same without attenuation, NaN where a reliability is not above 0.
        stage: reliability of the stage's vector.
        reference: of the reference's.
    """

    cosine: Float64[np.ndarray, " left_out"]
    corrected: Float64[np.ndarray, " left_out"]
    stage: Float64[np.ndarray, " left_out"]
    reference: Float64[np.ndarray, " left_out"]

    @classmethod
    def of(cls, xx: Moments, yy: Moments | None = None, xy: Moments | None = None) -> "Agreement":
        """Closed form: the reliability is the share of signal in the squared length.

        That is the split-half correlation stepped up to the full length, over all splits at once:
        halves have the signal and twice the noise, r = U/(U + 2N), and 2r/(1 + r) = U/(U + N).

        Source:
            Spearman 1904 (attenuation); Spearman 1910, Brown 1910 (stepping up).
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            stage = xx.signal / xx.inner
            if yy is None or xy is None:
                unknown = np.full(len(stage), np.nan)
                return cls(unknown, unknown, stage, unknown)
            return cls(
                np.clip(xy.inner / np.sqrt(xx.inner * yy.inner), -1.0, 1.0),
                corrected(xy.signal, xx.signal, yy.signal),
                stage,
                yy.signal / yy.inner,
            )

    @property
    def ceiling(self) -> float:
        """Largest cosine to be expected of independent noise: the root of both reliabilities."""
        both = float(self.stage[0]), float(self.reference[0])
        return float(np.sqrt(both[0] * both[1])) if min(both) > 0 else float("nan")


def corrected(
    across: Float64[np.ndarray, " left_out"],
    stage: Float64[np.ndarray, " left_out"],
    reference: Float64[np.ndarray, " left_out"],
) -> Float64[np.ndarray, " left_out"]:
    """Agreement across stages over the agreement within each; NaN where that is not above 0."""
    fit = (stage > 0) & (reference > 0)
    within = np.where(fit, stage, 1.0) * np.where(fit, reference, 1.0)
    return np.where(fit, across / np.sqrt(within), np.nan)


@dataclass(frozen=True)
class Size:
    """Length of the difference of the class means, without what noise adds to it.

    Args:
        norm: in the activations' own units.
        norm_to_spread: over the root mean squared distance of an example from its class mean.
        norm_to_residual: over the mean length of an activation.
    """

    norm: Interval
    norm_to_spread: Interval
    norm_to_residual: Interval

    @classmethod
    def of(cls, moments: Moments, side: Centred, cells: Cells) -> "Size":
        """Sizes of one stage, with intervals over groups.

        Args:
            moments: of its mean difference with itself.
            side: its rows.
            cells: of the contrast.
        """
        rows = cells.order
        squares = np.einsum("rd,rd->r", side.x, side.x)[rows].astype(np.float64)
        share = cells.share[cells.group, cells.label]
        own = np.zeros_like(cells.share)
        own[cells.group, cells.label] = share * np.add.reduceat(squares, cells.starts) / cells.size
        within = _without(own) * remaining(cells.share)
        within -= np.diagonal(moments.means, axis1=1, axis2=2)
        lengths, members = np.zeros(len(own)), np.zeros(len(own))
        np.add.at(lengths, cells.group, np.add.reduceat(side.norms[rows], cells.starts))
        np.add.at(members, cells.group, cells.size)
        residual = _without(lengths) / _without(members)
        with np.errstate(invalid="ignore", divide="ignore"):
            return cls(
                jackknifed(moments.signal, "root"),
                jackknifed(moments.signal / within.mean(axis=1), "root"),
                jackknifed(moments.signal / residual**2, "root"),
            )


def _without(own: Float64[np.ndarray, "group ..."]) -> Float64[np.ndarray, "left_out ..."]:
    """The sum over all groups, then over all but each one."""
    whole = own.sum(axis=0)
    return np.concatenate([whole[None], whole - own])
