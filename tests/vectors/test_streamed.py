"""One layer made into the vectors of its traits."""

import numpy as np
import pytest

from olmo_stages.data.splits import folds
from olmo_stages.heldout import HeldOut
from olmo_stages.vectors.contrast import contrasts
from olmo_stages.vectors.kinds import KINDS, extractor
from olmo_stages.vectors.nulls import draw
from olmo_stages.vectors.plan import Plan
from olmo_stages.vectors.streamed import Trait
from tests.fakes import BASE
from tests.vectors.planted import contrast_examples, planted

EXAMPLES = contrast_examples(12)
FOLDS = folds(EXAMPLES, 3)
TRAIN = np.array([fold != FOLDS for fold in range(3)])
VALUES = planted(examples=EXAMPLES).make(BASE)[0].astype(np.float32)


def trait(kind):
    extract = extractor(kind, strength=0.1)
    contrast = contrasts(EXAMPLES, paired=extract.needs_pairs)[0]
    plan = Plan(contrast, extract, draw(contrast, 3, 3, 0, pairs=extract.needs_pairs))
    return Trait(plan, HeldOut.of(EXAMPLES, FOLDS, 100, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cross_fitted_vector_never_sees_the_held_out_examples(kind):
    found = trait(kind).fit(VALUES, TRAIN)
    other = np.random.default_rng(1).normal(size=VALUES.shape).astype(np.float32)
    changed = trait(kind).fit(np.where(TRAIN[1][:, None], VALUES, other), TRAIN)
    # float32 sums, centred on the mean of all examples
    assert changed[1] == pytest.approx(found[1], abs=1e-5 * float(np.linalg.norm(found[1])))
    for fold in (0, 2):
        assert not np.allclose(changed[fold], found[fold], rtol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cross_fitted_vector_is_the_vector_of_the_rest(kind):
    own = trait(kind)
    found = own.fit(VALUES, TRAIN)
    for fold, mask in enumerate(TRAIN):
        rest = own.plan.contrast.subset(np.flatnonzero(mask))
        expected = own.plan.extract(VALUES[mask], rest.targets())[0]
        assert found[fold] == pytest.approx(expected, abs=1e-5 * float(np.linalg.norm(expected)))


def test_traits_read_their_own_examples():
    both = [*contrast_examples(6, trait="rude"), *EXAMPLES]
    contrast = contrasts(both, paired=False)[1]
    plan = Plan(contrast, extractor("mean_difference"), draw(contrast, 3, 3, 0))
    own = Trait(plan, HeldOut.of(EXAMPLES, FOLDS, 100, 0))
    padded = np.concatenate([np.full((24, VALUES.shape[1]), np.float32(99)), VALUES])
    found = own.crossed({"stage": padded})["stage->stage"]
    alone = trait("mean_difference").crossed({"stage": VALUES})["stage->stage"]
    assert np.array_equal(found.score, alone.score)
