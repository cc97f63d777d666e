"""The benchmarks run, and what they compare agrees, on small problems."""

import importlib.util
import sys

import numpy as np
import pytest
from rich.table import Table

from olmo_stages.similarity.linear import BiasedCKA
from olmo_stages.stages import conf_folder


def benchmark(name):
    folder = conf_folder().parent / "benchmarks"
    if str(folder) not in sys.path:  # where a script finds `sides`, too
        sys.path.append(str(folder))
    path = folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def probe_fits():
    return benchmark("probe_fits")


@pytest.fixture(scope="module")
def cka_map():
    return benchmark("cka_map")


@pytest.fixture(scope="module")
def cosine_null():
    return benchmark("cosine_null")


@pytest.fixture(scope="module")
def report_page():
    return benchmark("report_page")


def test_our_probes_score_as_the_scikit_learn_loop_does(probe_fits):
    x, labels, folds = probe_fits.Problem("small", 60, 8, 2, 2).data()
    relabelled = np.stack([labels, labels[::-1]])
    ours = probe_fits.ours(x, labels, folds, relabelled)
    # scikit-learn stops at 1e-8 here; the penalties must have been chosen alike as well.
    assert ours == pytest.approx(probe_fits.loop(x, labels, folds, relabelled), abs=1e-4)


def test_the_map_agrees_with_the_loop_over_pairs_and_is_measured_against_it(cka_map, capsys):
    cka_map.main(["--small"])
    shown = capsys.readouterr().out
    assert "(b) our 6 x 6 map" in shown
    assert "Largest difference from the loop in float64, 12 scores" in shown


def test_the_benchmark_stops_at_a_map_that_differs_from_the_loop(cka_map, monkeypatch):
    monkeypatch.setattr(cka_map, "DebiasedCKA", BiasedCKA)
    with pytest.raises(AssertionError, match="ours differs from the loop"):
        cka_map.main(["--small"])


def test_a_map_of_nans_is_a_difference(cka_map):
    with pytest.raises(AssertionError, match="by nan"):
        cka_map.check(np.array([np.nan]), np.array([0.5]))


def test_torch_cka_is_asked_for_the_same_scores(cka_map):
    pytest.importorskip("torch_cka", reason="a peer, installed by hand")
    problem = cka_map.Problem(cka_map.SMALL)
    # float32 without centring: it loses some digits to the offsets, 5e-6 here.
    assert cka_map.torch_cka_map(problem) == pytest.approx(
        cka_map.loop(problem, np.float64), abs=1e-4
    )


def test_memory_does_not_grow_with_the_number_of_layers_that_arrive_one_by_one(cka_map):
    n, d, layers = 40, 20_000, 16
    few, many = (cka_map.working_memory(cka_map.arriving(n, d, it), n, it) for it in (8, layers))
    one = 4 * n * d
    # Two threads hold two, one waits, one is being made; how they overlap varies by about one.
    assert few < 7 * one
    assert many < 7 * one


def test_memory_grows_if_all_layers_are_there_at_once(cka_map):
    n, d, layers = 40, 20_000, 16

    def at_once():
        yield from list(cka_map.arriving(n, d, layers))

    assert cka_map.working_memory(at_once(), n, layers) > layers * 4 * n * d


def test_the_null_of_cosines_agrees_with_the_loop_and_is_measured_against_it(cosine_null, capsys):
    cosine_null.main(["--small"])
    shown = capsys.readouterr().out
    assert "60 relabellings, 4 layers, 2 stages, n=40, d=256; 20 units" in shown
    assert shown.count("Largest difference from the loop in float64, 20 cosines") == 2


def test_the_benchmark_stops_at_a_null_that_differs_from_the_loop(cosine_null, monkeypatch):
    monkeypatch.setattr(cosine_null.Units, "sums", lambda self, x: x[self.order[self.starts]])
    with pytest.raises(AssertionError, match="ours differs from the loop"):
        cosine_null.main(["--small"])


def test_reports_are_timed_with_and_without_what_is_assembled(report_page, capsys, monkeypatch):
    monkeypatch.setattr(report_page, "apart", report_page.report)  # a process of its own takes long
    report_page.main(["--small"])
    shown = capsys.readouterr().out
    assert "report of 2 stages x 3 analyses" in shown
    assert "4, nothing assembled" in shown
    assert "4, assembled" in shown


def test_a_report_that_misses_a_target_is_told(report_page):
    found = {
        "seconds": dict.fromkeys(report_page.PHASES, 4.0),
        "bytes": 10**7,
        "memory": 0,
        "cpu": 1.0,
    }
    table = Table(*["head"] * 13)
    report_page.row(table, "slow", found | {"figures": 1})
    assert [*table.columns[-1].cells] == ["too slow, too large"]
    report_page.row(
        table,
        "quick",
        found | {"figures": 1, "bytes": 1, "seconds": dict.fromkeys(report_page.PHASES, 0.1)},
    )
    assert [*table.columns[-1].cells][1] == "met"


def test_a_phase_within_another_does_not_count_twice(report_page, monkeypatch):
    now = iter([0.0, 1.0, 3.0, 8.0, 10.0])
    monkeypatch.setattr(report_page.time, "perf_counter", lambda: next(now))
    clock = report_page.Clock()
    with clock.phase("study"), clock.phase("read"):
        pass
    assert (clock.seconds["study"], clock.seconds["read"]) == (4.0, 5.0)
