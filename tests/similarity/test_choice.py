"""Measures by name."""

import pytest

from olmo_stages.similarity.choice import FITTED, TABLES, fitted, pair_table
from olmo_stages.similarity.measure import Fitted, PairTable


@pytest.mark.parametrize("name", TABLES)
def test_a_pair_table_is_called_what_it_declares(name):
    measure = pair_table(name, batch=16, neighbours=3)
    assert isinstance(measure, PairTable)
    assert measure.declared.name == name


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_measure_is_called_what_it_declares(name):
    measure = fitted(name, n_components=5, variance=0.9)
    assert isinstance(measure, Fitted)
    assert measure.declared.name == name


def test_options_reach_their_measure():
    assert pair_table("minibatch_cka", batch=16, neighbours=3).batch == 16
    assert pair_table("debiased_cka", batch=16, neighbours=3).batch is None
    assert pair_table("mutual_knn", batch=16, neighbours=3).neighbours == 3
    assert fitted("procrustes", n_components=5, variance=0.9).n_components == 5
    assert fitted("svcca", n_components=5, variance=0.9).variance == 0.9
    assert fitted("pwcca", n_components=5, variance=0.9).variance == 0.9
