import io
import math

import pytest
from rich.console import Console

from olmo_stages.records import Job, Status
from olmo_stages.report import terminal
from olmo_stages.report.terminal import comparison_table, job_table, reasons, sweep_table
from olmo_stages.types import Measurement, Result, Stage

BASE = Stage("base", "tiny", "miniature")
SFT = Stage("think_sft", "tiny", "miniature", parent=BASE)
JOB = Job("probe", SFT, BASE, "truth", {})
TYPES = ["sliding_attention"] * 3 + ["full_attention"]


def row(metric, value, layer=None, **fields):
    kind = "" if layer is None else TYPES[layer]
    defaults = {"stage": "think_sft", "variant": "probe", "layer_type": kind}
    return Measurement(metric, value, layer=layer, **(defaults | fields))


def probe_result(**fields):
    rows = []
    for layer in range(4):
        value = 0.6 + 0.1 * layer
        interval = {"ci_low": value - 0.05, "ci_high": value + 0.05}
        rows += [
            row("auroc", value, layer, **interval, p_max=0.001, n=40, note="a" * 90 * (layer == 1)),
            row("balanced_accuracy", value - 0.1, layer, **interval),
            row("log_loss", 0.5, layer),
            row("selectivity", 0.2, layer),
            row("auroc_difference", 0.01, layer, reference="base", ci_low=-0.02, ci_high=0.04),
            row("auroc", value - 0.2, layer, variant="control"),
            row("transfer_auroc", 0.55, layer, variant="stage->reference:own"),
        ]
    rows.append(row("auroc", 0.53, variant="baseline:length"))
    return Result(tuple(rows), headline={"best layer": 2, "auroc": 0.8}, **fields)


def show(table, width=100):
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue()


def line_of(text, start):
    return next(line for line in text.splitlines() if line.split()[:1] == [start])


# ---- one job


def test_a_layer_is_a_row_with_its_type_value_and_interval():
    line = line_of(show(job_table(probe_result(), JOB)), "3")
    assert line.split()[1] == "F"
    assert "0.900 [0.85, 0.95]" in line
    assert "+0.010 [-0.02, +0.04]" in line


def test_only_the_main_variant_is_in_the_rows():
    assert "0.400" not in show(job_table(probe_result(), JOB))  # control at layer 0


def test_piped_output_fits_100_columns_without_escapes_or_cuts():
    text = show(job_table(probe_result(), JOB))
    assert "\x1b" not in text
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("width", [60, 80, 99, 110])
def test_no_number_is_clipped_in_any_terminal(width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(job_table(probe_result(), JOB, width), crop=False)
    text = console.export_text()
    line = line_of(text, "3")
    for number in ["0.900", "0.800", "+0.010", "0.001"]:
        assert number in line
    assert "…" not in text
    assert "selectivity" in text
    assert ("[-0.02, +0.04]" in line) == (width >= 99)


def test_a_narrow_terminal_shows_the_intervals_of_the_first_metric():
    line = line_of(show(job_table(probe_result(), JOB, 80), 80), "3")
    assert "0.900 [0.85, 0.95]" in line
    assert len(line) <= 80
    assert "0.500" not in line  # the log loss gives way


def test_columns_come_from_the_metrics_of_any_analysis():
    rows = tuple(row("cka", 0.9 - 0.1 * layer, layer, variant="") for layer in range(4))
    text = show(job_table(Result(rows), Job("cka", SFT, BASE, "truth", {})))
    assert "cka" in text
    assert "auroc" not in text
    assert "0.600" in line_of(text, "3")


def test_a_value_that_is_not_there_or_undefined_is_a_dash():
    rows = (row("auroc", math.nan, 0), row("log_loss", 0.5, 1))
    text = show(job_table(Result(rows), JOB))
    assert line_of(text, "0").split() == ["0", "S", "-", "-"]
    assert line_of(text, "1").split() == ["1", "S", "-", "0.500"]


@pytest.mark.parametrize(
    ("half", "shown"),
    [(5e-7, "-61.054 [-61.054, -61.054]"), (1e-4, "-61.0540 [-61.0541, -61.0539]")],
)
def test_an_interval_as_short_as_rounding_adds_no_digits(half, shown):
    rows = (row("score", -61.054, 0, ci_low=-61.054 - half, ci_high=-61.054 + half),)
    assert shown in line_of(show(job_table(Result(rows), JOB)), "0")


@pytest.mark.parametrize(
    ("low", "shown"),
    [(-0.9999988, "-0.929 [-1.00, 1.00]"), (0.9999, "0.9999500 [0.9999000, 0.9999999]")],
)
def test_an_interval_that_is_wide_needs_no_digits_at_its_upper_end(low, shown):
    value = -0.929 if low < 0 else 0.99995
    rows = (row("cosine", value, 0, ci_low=low, ci_high=0.9999999),)
    assert shown in line_of(show(job_table(Result(rows), JOB)), "0")


@pytest.mark.parametrize("name", ["reference->reference:source", "raw:" + "long trait " * 9])
def test_a_variant_is_broken_only_where_it_is_very_long(name):
    rows = (
        *(row("cosine", 0.9, i, variant="", note="not distinguishable from it") for i in range(2)),
        row("transfer_balanced_accuracy", 0.5, 0, variant=name, note="on held-out groups only"),
    )
    result = Result(rows, headline={"at layer": 0})
    text = show(comparison_table(result, Job("cosine", SFT, BASE, "truth", {}), 60))
    assert (name in text) == (len(name) <= 30)


def test_notes_are_letters_that_the_caption_explains():
    rows = (row("auroc", 0.6, 0, note="length explains it"), row("auroc", 0.7, 1))
    text = show(job_table(Result(rows), JOB))
    assert line_of(text, "0").split()[-1] == "a"
    assert line_of(text, "1").split()[-1] == "0.700"
    assert "a: length explains it" in text


def test_numbers_about_no_layer_come_last():
    rows = (row("auroc", 0.6), row("auroc", 0.7, 0))
    text = show(job_table(Result(rows), JOB))
    assert text.index("0.700") < text.index("0.600")


def test_an_empty_result_is_an_empty_table():
    assert job_table(Result(()), JOB).row_count == 0


def test_text_from_data_is_not_markup():
    rows = (row("[red]m[/red]", 0.6, 0, note="[bold]n[/bold] [/nothing]"),)
    job = Job("probe", SFT, BASE, "[link=x]d[/link]", {})
    text = show(job_table(Result(rows), job))
    for part in ["[red]m[/red]", "[bold]n[/bold] [/nothing]", "[link=x]d[/link]"]:
        assert part in text


# ---- what it is compared with


def test_other_variants_are_shown_at_the_best_layer():
    text = show(comparison_table(probe_result(), JOB))
    assert line_of(text, "control").split() == ["control", "auroc", "2", "0.600"]
    assert line_of(text, "baseline:length").split() == ["baseline:length", "auroc", "all", "0.530"]
    assert line_of(text, "probe").split()[2:4] == ["2", "0.800"]


def test_metrics_of_other_variants_alone_are_shown():
    assert "transfer auroc" in show(comparison_table(probe_result(), JOB))


def test_with_scaled_down_dimensions_only_the_first_metric_is_compared():
    rows = [
        row(metric, 0.5 + 0.1 * ("raw" in variant), 2, variant=variant)
        for metric, variants in (
            ("cosine", ("raw", "standardised")),
            ("reliability", ("stage:raw", "stage:standardised")),
            ("norm", ("stage:standardised",)),
        )
        for variant in variants
    ]
    text = show(comparison_table(Result(tuple(rows), headline={"at layer": 2}), JOB))
    assert line_of(text, "standardised").split()[1] == "cosine"
    assert line_of(text, "stage:raw").split()[1] == "reliability"
    # A number that is there in one version only is shown.
    assert line_of(text, "stage:standardised").split()[1] == "norm"


def test_of_several_traits_only_the_first_metric_is_compared():
    rows = [
        row(metric, 0.5, 2, variant=variant, trait=trait)
        for trait in ("hostile", "true")
        for metric, variant in (("cosine", "raw"), ("reliability", "stage:raw"))
    ]
    lines = show(comparison_table(Result(tuple(rows), headline={"at layer": 2}), JOB)).splitlines()
    found = [line.split()[:4] for line in lines if " · " in line]
    assert ["true", "·", "raw", "cosine"] in found
    assert ["hostile", "·", "stage:raw", "reliability"] in found
    assert ["true", "·", "stage:raw", "reliability"] not in found


def test_without_other_variants_there_is_no_comparison():
    rows = tuple(it for it in probe_result().measurements if it.variant == "probe")
    assert comparison_table(Result(rows, headline={"best layer": 2}), JOB) is None


# ---- an analysis that compares layers with layers


def pair(metric, value, layer, other, **fields):
    of_layer = {"reference": "base", "reference_layer": other, "variant": "raw"}
    return row(metric, value, layer, **(of_layer | fields))


def cka_result():
    rows = [pair("cka_map", 0.111, layer, other) for layer in range(4) for other in range(4)]
    for layer in range(4):
        value = 0.95 - 0.1 * layer
        rows += [
            pair("cka", value, layer, layer, ci_low=value - 0.02, ci_high=value + 0.02, p_max=0.01),
            pair("mutual_knn", 0.333, layer, layer),
            pair("cka", value - 0.05, layer, layer, variant="standardised"),
            pair("cka", 0.222, layer, layer, variant="floor:raw"),
            pair("best_match", 0.444, layer, max(layer, 2)),
        ]
    for kind, value in (("", 0.81), ("sliding_attention", 0.87), ("full_attention", 0.66)):
        rows += [row("cka_mean", value, None, variant="raw", layer_type=kind)]
        rows += [row("mutual_knn", value - 0.5, None, variant="raw", layer_type=kind or "x_y")]
    return Result(tuple(rows), headline={"lowest at layer": 3, "cka": 0.65, "last layer": 0})


CKA = Job("cka", SFT, BASE, "truth", {})


def test_the_main_variant_is_that_of_the_first_row_where_none_is_named_like_the_analysis():
    text = show(job_table(cka_result(), CKA))
    assert line_of(text, "3")[:25].split()[:3] == ["3", "F", "0.650"]
    assert "0.900" not in text  # standardised at layer 0
    named = (*cka_result().measurements, *(row("cka", 0.5, i, variant="cka") for i in range(4)))
    assert line_of(show(job_table(Result(named), CKA)), "3").split()[2:] == ["0.500"]


def test_metrics_over_pairs_of_layers_are_in_neither_table():
    tables = show(job_table(cka_result(), CKA)) + show(comparison_table(cka_result(), CKA))
    for value in ("0.111", "0.444"):
        assert value not in tables
    assert "0.333" in tables  # the same layer on both sides


def test_a_column_of_dashes_is_not_made_for_numbers_about_no_layer():
    text = show(job_table(cka_result(), CKA))
    assert "mean" not in text
    assert "all" not in text.split()
    only = Result(tuple(it for it in cka_result().measurements if it.layer is None))
    assert "0.810" in show(job_table(only, CKA))


def test_numbers_about_a_type_of_layers_are_compared_with_their_type():
    rows = [line.split() for line in show(comparison_table(cka_result(), CKA)).splitlines()]
    assert ["raw", "cka", "mean", "all", "0.810"] in rows
    assert ["raw", "cka", "mean", "sliding", "0.870"] in rows
    assert ["raw", "cka", "mean", "full", "0.660"] in rows
    assert ["raw", "mutual", "knn", "full", "0.160"] in rows


def test_the_headlines_first_layer_is_the_one_compared_at():
    rows = [line.split() for line in show(comparison_table(cka_result(), CKA)).splitlines()]
    assert ["standardised", "cka", "3", "0.600"] in rows
    assert ["floor:raw", "cka", "3", "0.222"] in rows
    assert terminal.best_layer(cka_result()) == 3
    assert terminal.best_layer(Result((), headline={"layer": 2})) == 2
    assert terminal.best_layer(Result((), headline={"layers": 2, "best": 3})) is None


# ---- a sweep


def done(stage, **fields):
    about = {"stage": stage, "size": "tiny", "data": "truth"}
    head = {"best layer": 5, "auroc": 0.9312, "interval": "0.90-0.96"}
    return Status(**({"job": stage, "state": "ok", "headline": head, "about": about} | fields))


def test_a_job_is_a_row_of_its_headline():
    text = show(sweep_table([done("think_sft"), done("think_dpo")]))
    assert line_of(text, "think_sft").split() == ["think_sft", "5", "0.931", "0.90-0.96", "ok"]


def numbers():
    return {
        "auroc": Measurement("auroc", 0.9312, "a", ci_low=0.9, ci_high=0.956),
        "selectivity": Measurement("selectivity", 0.25, "a", ci_low=0.2, ci_high=0.3),
        "auroc - reference": Measurement("auroc_difference", 0.01, "a", ci_low=-0.02, ci_high=0.04),
        "mean": Measurement("mean", math.nan, "a", note="no layer is reliable"),
    }


def shown_numbers(width):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(sweep_table([done("a", headline=numbers())], "", width))
    return line_of(console.export_text(), "a")


def test_a_measurement_of_a_headline_has_its_interval():
    text = shown_numbers(150)
    assert "0.931 [0.900, 0.956]" in text
    assert "0.250 [0.200, 0.300]" in text
    assert "+0.010 [-0.020, +0.040]" in text
    assert text.split()[-2:] == ["-", "ok"]


def test_in_a_narrow_terminal_the_first_number_and_changes_keep_their_intervals():
    text = shown_numbers(80)
    assert "0.931 [0.900, 0.956]" in text
    assert "0.250  " in text
    assert "+0.010 [-0.020, +0.040]" in text


def test_only_what_tells_jobs_apart_is_a_column():
    same = show(sweep_table([done("a"), done("b")]))
    other = {"stage": "a", "size": "7b", "data": "truth"}
    differing = show(sweep_table([done("a"), done("a", about=other)]))
    assert "size" not in same
    assert "size" in differing
    assert "data" not in differing


def test_an_option_that_differs_is_a_column():
    jobs = [
        done("a", overrides=["model=a", f"seed={seed}", "data.format=chat"], job=str(seed))
        for seed in (0, 1)
    ]
    text = show(sweep_table(jobs))
    rows = [line.split() for line in text.splitlines()]
    assert [row[1] for row in rows if row[:1] == ["a"]] == ["0", "1"]
    assert "seed" in text
    assert "data.format" not in text


def test_a_failed_job_shows_only_what_differs():
    failed = Status("x", "failed", error="no config", overrides=["model=b", "seed=0"])
    text = show(sweep_table([done("a", overrides=["model=a", "seed=0"]), failed]))
    assert line_of(text, "model=b").split() == ["model=b", "-", "-", "-", "failed"]
    assert "seed" not in text
    ended = done("a", overrides=["model=a", "seed=0"])
    assert reasons([ended, failed]) == [("x", "model=b: no config")]


def test_a_sweeps_numbers_are_whole_in_a_narrow_terminal():
    head = {f"some metric {i}": 0.12345 for i in range(8)}
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(sweep_table([done("a", headline=head)], "", 60), crop=False)
    assert console.export_text().count("0.123") == 8


def test_a_failed_job_has_its_reason_in_one_line():
    failed = done("custom", state="failed", headline={}, error="no [bold]config[/bold]\n at /x")
    text = show(sweep_table([done("a"), failed]))
    assert line_of(text, "custom").split() == ["custom", "-", "-", "-", "failed"]
    assert reasons([done("a"), failed]) == [
        (failed.job, "custom: no [bold]config[/bold] at /x"),
    ]


def test_a_missing_job_is_named_by_its_overrides():
    missing = Status("3", "missing", overrides=["model=think_rlvr"], error="never started")
    text = show(sweep_table([done("a"), missing]))
    assert line_of(text, "model=think_rlvr").split()[-1] == "missing"


def test_headlines_of_different_analyses_share_a_table():
    text = show(sweep_table([done("a"), done("b", headline={"cka": 0.5})]))
    assert line_of(text, "b").split() == ["b", "-", "-", "-", "0.500", "ok"]


def test_jobs_without_any_description_are_named_by_their_number():
    text = show(sweep_table([Status("0", "running")]))
    assert line_of(text, "0").split() == ["0", "running"]


def test_rounding_never_shows_an_interval_without_its_value():
    near_one = Measurement("auroc", 0.9988, "base", layer=0, ci_low=0.9952, ci_high=1.0)
    assert terminal._number(near_one, wide=True) == "0.999 [0.995, 1.000]"
    middle = Measurement("auroc", 0.7, "base", layer=0, ci_low=0.65, ci_high=0.75)
    assert terminal._number(middle, wide=True) == "0.700 [0.65, 0.75]"


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("cka_change", -1.2e-4, "-1.2e-04 [-1.8e-04, -6.0e-05]"),
        ("cka_change", -0.012, "-0.012 [-0.02, -0.01]"),
    ],
)
def test_small_changes_are_not_shown_as_none(metric, value, shown):
    small = Measurement(metric, value, "base", layer=1, ci_low=value * 1.5, ci_high=value / 2)
    assert terminal._number(small, wide=True).startswith(shown)


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ((0.004, -0.0003, 0.0085), "+0.004 [-0.0003, +0.01]"),
        ((-0.0002, -0.12, 0.1), "-0.0002 [-0.12, +0.10]"),
        ((0.0, 0.0, 0.0), "0.000 [0.00, 0.00]"),
    ],
)
def test_the_side_of_zero_is_seen(numbers, shown):
    value, low, high = numbers
    row = Measurement("auroc_difference", value, "base", layer=1, ci_low=low, ci_high=high)
    assert terminal._number(row, wide=True) == shown


def test_rows_about_pairs_of_layers_are_no_curve():
    about = {"reference": "base", "layer": 1}
    assert Measurement("cka_map", 0.5, "a", **about, reference_layer=1).pairs_layers
    assert Measurement("best_match", 0.5, "a", **about, reference_layer=1).pairs_layers
    assert Measurement("best_match_stages", 0.5, "a", **about, reference_layer=1).pairs_layers
    assert Measurement("cka", 0.5, "a", **about, reference_layer=2).pairs_layers
    assert not Measurement("cka", 0.5, "a", **about, reference_layer=1).pairs_layers
    assert not Measurement("auroc", 0.5, "a", **about).pairs_layers
