"""Every measure's number is that of the paper's formula, and of other libraries."""

import numpy as np
import pytest
import torch
from calibrated_similarity import calibrate
from rsatoolbox import rdm

from olmo_stages.similarity.design import permutations
from olmo_stages.similarity.distances import squared_distances
from olmo_stages.similarity.inference import from_error
from olmo_stages.similarity.linear import BiasedCKA, DebiasedCKA
from olmo_stages.similarity.minibatch import MinibatchCKA
from olmo_stages.similarity.rsa import RSA
from tests.similarity import literal
from tests.similarity.literal import LITERAL, WHOLE, design_of, name, related, score

each_whole = pytest.mark.parametrize("measure", WHOLE, ids=name)

# Rounding of float64 over some thousand products; neighbours and ranks are the same exactly.
EXACT = 1e-8
# Inner products of float32 are rounded by about 1e-7; a rank changes by rounding once in a while.
SINGLE = 1e-5


@pytest.mark.parametrize("seed", [0, 1, 2])
@each_whole
def test_double_precision_agrees_with_the_formula(measure, seed):
    (x,), (y,) = related(60, seed=seed)
    assert score(measure, x, y) == pytest.approx(LITERAL[name(measure)](x, y), abs=EXACT)


@pytest.mark.parametrize("seed", [0, 1, 2])
@each_whole
def test_single_precision_agrees_with_the_formula(measure, seed):
    (x,), (y,) = related(60, seed=seed, dtype=np.float32)
    expected = LITERAL[name(measure)](x.astype(np.float64), y.astype(np.float64))
    assert score(measure, x, y) == pytest.approx(expected, abs=SINGLE)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_minibatch_agrees_with_the_ratio_of_sums(seed):
    (x,), (y,) = related(70, seed=seed)
    design = design_of(70, batch=20, seed=seed)
    assert {len(block) for block in design.blocks} == {20, 30}
    expected = literal.minibatch_cka(x, y, design.blocks)
    assert score(MinibatchCKA(20), x, y, design) == pytest.approx(expected, abs=EXACT)


def test_minibatch_agrees_with_the_ratio_of_sums_if_rows_differ_in_length():
    (x,), (y,) = related(80)
    lengths = np.exp(np.random.default_rng(1).normal(size=(80, 1)))
    x, y = x * lengths, y * lengths**2
    design = design_of(80, batch=10)
    expected = literal.minibatch_cka(x, y, design.blocks)
    assert score(MinibatchCKA(10), x, y, design) == pytest.approx(expected, abs=EXACT)


def test_biased_cka_is_rsatoolboxs_whitened_cosine():
    (x,), (y,) = related(30)
    sides = [rdm.RDMs(squared_distances(_gram(v))[np.triu_indices(30, 1)][None]) for v in (x, y)]
    theirs = rdm.compare(*sides, method="cosine_cov")[0, 0]
    assert score(BiasedCKA(), x, y) == pytest.approx(theirs, abs=EXACT)


def test_rsa_is_rsatoolboxs_spearman():
    (x,), (y,) = related(30)
    sides = [rdm.RDMs(squared_distances(_gram(v))[np.triu_indices(30, 1)][None]) for v in (x, y)]
    theirs = rdm.compare(*sides, method="spearman")[0, 0]
    assert score(RSA(), x, y) == pytest.approx(theirs, abs=EXACT)


def test_rsa_gives_ties_their_mean_rank():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2, size=(2, 30, 4)).astype(np.float64)  # five different distances
    units = np.arange(30)
    # Inner products of integers, not centred, so that equal distances are equal to the last bit.
    one, other = (RSA().table(side @ side.T, units) for side in (x, y))
    assert (one * other).sum() / (30 * 29) == pytest.approx(literal.rsa(x, y), abs=EXACT)


def _gram(x):
    centred = x - x.mean(axis=0)
    return centred @ centred.T


def test_debiased_cka_is_torch_ckas():
    peer = pytest.importorskip("torch_cka").CKA
    theirs = peer.__new__(peer)  # as made, it needs two models
    theirs.device = "cpu"
    (x,), (y,) = related(40)
    k, other = (torch.from_numpy(v @ v.T).fill_diagonal_(0).float() for v in (x, y))
    hsic = theirs._HSIC
    expected = hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))
    # It works in float32, and without centring first.
    assert score(DebiasedCKA(), x, y) == pytest.approx(expected, abs=1e-4)


def test_calibrated_scores_are_those_of_their_authors_code():
    (x,), (y,) = related(40, strength=0.3)
    moved = permutations(design_of(40), 99, seed=0)
    order = iter(moved)
    theirs = calibrate(
        torch.from_numpy(x),
        torch.from_numpy(y),
        lambda a, b: score(DebiasedCKA(), a.numpy(), b.numpy()),
        K=99,
        perm_fn=lambda _n, _device: torch.from_numpy(next(order)),
    )
    comparison = literal.compare(DebiasedCKA(), [x], [y])
    ours = from_error(comparison.value, comparison.error, 40, DebiasedCKA().declared)
    ours = ours.against(comparison.null(moved), top=1.0)
    assert 0 < float(theirs[0]) < comparison.value[0, 0]
    assert ours.calibrated[0, 0] == pytest.approx(float(theirs[0]), abs=1e-6)
    assert ours.p[0, 0] == pytest.approx(float(theirs[1]), abs=1e-6)
