"""The benchmarks run, and what they compare agrees, on small problems."""

import importlib.util

import numpy as np
import pytest

from olmo_stages.stages import conf_folder


@pytest.fixture(scope="module")
def probe_fits():
    path = conf_folder().parent / "benchmarks" / "probe_fits.py"
    spec = importlib.util.spec_from_file_location("probe_fits", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_our_probes_score_as_the_scikit_learn_loop_does(probe_fits):
    x, labels, folds = probe_fits.Problem("small", 60, 8, 2, 2).data()
    relabelled = np.stack([labels, labels[::-1]])
    ours = probe_fits.ours(x, labels, folds, relabelled)
    # scikit-learn stops at 1e-8 here; the penalties must have been chosen alike as well.
    assert ours == pytest.approx(probe_fits.loop(x, labels, folds, relabelled), abs=1e-4)
