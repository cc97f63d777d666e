"""Kinds of vectors against plain implementations, and what each is known to find."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from olmo_stages.errors import ConfigError, DataError
from olmo_stages.vectors.contrast import Targets, contrasts
from olmo_stages.vectors.kinds import KINDS, centred, extractor, mean_differences
from tests.vectors import literal


def one(data, kind):
    extract = extractor(kind, shrinkage=0.2)
    (contrast,) = contrasts(data, paired=extract.needs_pairs)
    return extract, contrast


def values(data, d, seed=0, strength=1.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((len(data), d)) * np.linspace(0.5, 3, d)
    return (x + literal.labels_of(data)[:, None] * strength + 5).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_swapping_the_labels_negates_the_vector(kind):
    data = literal.paired(10)
    extract, contrast = one(data, kind)
    x = values(data, 12)
    targets = contrast.targets()
    pairs = None if targets.pairs is None else targets.pairs[:, :, ::-1]
    swapped = Targets((1 - targets.labels).astype(np.int8), pairs)
    ours, theirs = extract(x, targets), extract(x, swapped)
    if kind == "logistic":
        assert theirs == pytest.approx(-ours, rel=1e-4, abs=1e-6)
    else:
        assert (theirs == -ours).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_is_left_out_might_as_well_not_be_there(kind):
    data = literal.paired(10)
    extract, contrast = one(data, kind)
    x = values(data, 12)
    keep = contrast.groups > 2
    fewer = contrast.subset(np.flatnonzero(keep))
    masked = extract(x, contrast.targets().within([keep]))
    assert masked == pytest.approx(extract(x[keep], fewer.targets()), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_several_targets_at_once_are_those_one_by_one(kind):
    data = literal.paired(10)
    extract, contrast = one(data, kind)
    x = values(data, 12)
    masks = [contrast.groups != group for group in range(10)]
    targets = contrast.targets().within(masks)
    together = extract(x, targets)
    alone = np.concatenate([extract(x, targets.of(np.array([i]))) for i in range(10)])
    # Many targets at once are made in float32, and probes to a looser tolerance.
    tolerance = 2e-3 if kind == "logistic" else 1e-5
    assert together == pytest.approx(
        alone, rel=tolerance, abs=tolerance * float(np.abs(alone).max())
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_without_a_class_gives_zeros(kind):
    data = literal.paired(6)
    extract, contrast = one(data, kind)
    targets = contrast.targets().within([contrast.labels == 1])
    assert (extract(values(data, 8), targets) == 0).all()


def test_the_mean_difference_is_exact_beside_a_large_offset():
    data = literal.pure(20)
    extract, contrast = one(data, "mean_difference")
    x = values(data, 8) + np.float32(1000)
    exact = literal.mean_difference(x.astype(np.float64), literal.labels_of(data))
    assert extract(x, contrast.targets())[0] == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("d", [10, 90])
def test_lda_is_the_discriminant_of_the_shrunk_covariance(d):
    data = literal.pure(20)
    extract, contrast = one(data, "lda")
    x = values(data, d)
    exact = literal.discriminant(x, literal.labels_of(data), 0.2)
    assert extract(x, contrast.targets())[0] == pytest.approx(exact, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("d", [10, 90])
def test_lda_is_the_mean_difference_of_its_features(d):
    data = literal.pure(20)
    extract, contrast = one(data, "lda")
    x = values(data, d)
    by_features = mean_differences(extract.features(centred(x)), contrast.targets())
    assert by_features == pytest.approx(extract(x, contrast.targets()), rel=1e-4, abs=1e-6)


def test_lda_is_blind_to_what_varies_without_the_trait_and_the_mean_difference_is_not():
    data = literal.pure(60)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((len(data), 5))
    x[:, 0] += 2 * literal.labels_of(data)
    x[:, 1] = x[:, 1] * 30 + 8 * literal.labels_of(data)
    x = x.astype(np.float32)
    found = {}
    for kind, shrinkage in (("lda", 0.001), ("mean_difference", 0.1)):
        vector = extractor(kind, shrinkage=shrinkage)(x, one(data, kind)[1].targets())[0]
        found[kind] = abs(vector[0]) / np.linalg.norm(vector)
    assert found["lda"] > 0.9
    assert found["mean_difference"] < 0.6


@pytest.mark.parametrize("d", [10, 90])
def test_logistic_is_the_probe_of_scikit_learn(d):
    data = literal.uneven(40)
    extract, contrast = one(data, "logistic")
    x, labels = values(data, d), literal.labels_of(data)
    own = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    own /= np.sqrt(np.square(own).sum(axis=1).mean())
    peer = LogisticRegression(
        C=1 / (len(x) * 0.01), class_weight="balanced", tol=1e-10, max_iter=10_000
    ).fit(own, labels)
    assert extract(x, contrast.targets())[0] == pytest.approx(peer.coef_[0], abs=1e-4)


def shared_offset(rng, n_groups=40, d=60):
    """Differences with a strong common part; what else varies in them is spread more widely."""
    data = literal.paired(n_groups, 2)
    truth = rng.standard_normal(d)
    truth /= np.linalg.norm(truth)
    noisy = rng.standard_normal(d)
    noisy -= (noisy @ truth) * truth
    noisy /= np.linalg.norm(noisy)
    labels = literal.labels_of(data)
    x = 0.2 * rng.standard_normal((len(data), d)) + 100 * rng.standard_normal(d)
    x += np.outer(labels, 5 * truth) + np.outer(labels * rng.standard_normal(len(data)) * 2, noisy)
    return data, x.astype(np.float32), truth


def test_pca_finds_what_differences_share_and_centred_pca_does_not():
    for seed in range(10):
        data, x, truth = shared_offset(np.random.default_rng(seed))
        extract, contrast = one(data, "pca")
        (vector,) = extract(x, contrast.targets())
        assert literal.cosine(vector, truth) > 0.95
        differences = x[contrast.pairs[:, 0]] - x[contrast.pairs[:, 1]]
        within = differences - differences.mean(axis=0)
        axis = np.linalg.svd(within, full_matrices=False)[2][0]
        assert abs(literal.cosine(axis, truth)) < 0.5


@pytest.mark.parametrize("d", [10, 90])
def test_pca_is_the_first_singular_vector_as_long_as_the_mean_difference_along_it(d):
    data = literal.paired(12)
    extract, contrast = one(data, "pca")
    x = values(data, d)
    differences = (x[contrast.pairs[:, 0]] - x[contrast.pairs[:, 1]]).astype(np.float64)
    axis = np.linalg.svd(differences, full_matrices=False)[2][0]
    exact = axis * (differences.mean(axis=0) @ axis)
    assert extract(x, contrast.targets())[0] == pytest.approx(exact, rel=1e-4, abs=1e-5)


def test_pca_without_pairs_is_refused():
    data = literal.paired(6)
    (contrast,) = contrasts(data, paired=False)
    with pytest.raises(DataError, match="pca needs pairs"):
        extractor("pca")(values(data, 5), contrast.targets())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("mass_mean", {}, "'mass_mean' does not exist; choose from mean_difference"),
        ("lda", {"shrinkage": 0.0}, "shrinkage=0.0 must be above 0"),
        ("lda", {"shrinkage": 1.0}, "shrinkage=1.0 must be above 0 and below 1"),
        ("logistic", {"strength": 0.0}, "strength=0.0 must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        extractor(kind, **options)


def test_only_probes_need_torch():
    code = (
        "import sys, olmo_stages.vectors.turns, olmo_stages.vectors.traits\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
