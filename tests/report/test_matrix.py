import io
import math

from rich.console import Console

from olmo_stages.report.matrix import stage_tables
from olmo_stages.types import Measurement, Result

ORDER = ["base", "think_sft", "think_dpo"]


def row(stage, reference, value, **fields):
    return Measurement(
        **({"metric": "cka_mean", "variant": "raw"} | fields),
        stage=stage,
        reference=reference,
        value=value,
    )


ROWS = (
    row("think_sft", "base", 0.8),
    row("think_dpo", "base", math.nan),
    row("think_dpo", "think_sft", 0.9),
)


def show(tables, width=100):
    text = io.StringIO()
    for table in tables:
        Console(file=text, width=width).print(table, crop=False)
    return [line.split() for line in text.getvalue().splitlines() if line.strip()]


def test_rows_are_stages_and_columns_references_in_order():
    tables = stage_tables(Result(ROWS), ORDER, "cka.truth")
    assert tables[0].title.plain == "cka.truth · cka mean · raw · over all layers"
    head, _, _, *below = show(tables)[-5:]
    assert head == ORDER
    assert below[0] == ["think_sft", "0.800"]  # the other direction was not measured
    assert below[1] == ["think_dpo", "-", "0.900"]
    turned = show(stage_tables(Result(ROWS), ORDER[::-1], ""))
    assert ORDER[::-1] in turned
    assert ORDER not in turned


def test_a_value_stands_below_its_reference():
    text = io.StringIO()
    Console(file=text, width=100).print(stage_tables(Result(ROWS), ORDER, "")[0])
    lines = text.getvalue().splitlines()
    head = next(line for line in lines if "think_dpo" in line and "base" in line)
    line = next(line for line in lines if line.split()[:1] == ["think_dpo"])
    assert line.index("0.900") + 5 == head.index("think_sft") + len("think_sft")


def test_only_the_first_metric_and_variant_is_shown():
    others = (
        row("think_sft", "base", 0.111, variant="standardised"),
        row("think_sft", "base", 0.222, metric="other"),
        row("think_sft", "base", 0.333, layer=3),
        row("think_sft", "", 0.444),
    )
    one = Result((*ROWS[:1], *others, *ROWS[1:]))
    assert show(stage_tables(one, ORDER, "")) == show(stage_tables(Result(ROWS), ORDER, ""))


def test_types_of_layers_have_tables_where_nothing_is_about_all():
    kinds = ("sliding_attention", "full_attention")
    typed = tuple(row("think_sft", "base", 0.7, layer_type=kind) for kind in kinds)
    names = [table.title.plain for table in stage_tables(Result(typed), ORDER, "t")]
    assert names == [f"t · cka mean · raw · {it.replace('_', ' ')}" for it in kinds]
    (table,) = stage_tables(Result((*typed, *ROWS)), ORDER, "t")
    assert table.title.plain == "t · cka mean · raw · over all layers"


def test_the_title_is_without_what_is_plain_from_the_table():
    (table,) = stage_tables(Result((row("a", "b", 0.5, metric="rsa_stages"),)), ["b", "a"], "t")
    assert table.title.plain == "t · rsa · raw · over all layers"


def test_in_a_narrow_terminal_columns_have_numbers_and_values_stay_whole():
    lines = show(stage_tables(Result(ROWS), ORDER, "", 36), 36)
    assert lines.index(["1", "2", "3"]) == len(lines) - 5
    assert lines[-1] == ["3", "think_dpo", "-", "0.900"]
    assert show(stage_tables(Result(ROWS), ORDER, "", 5), 5)[-1][-1] == "0.900"


def test_without_numbers_about_two_stages_there_is_no_table():
    assert stage_tables(Result((row("think_sft", "base", 0.5, layer=0),)), ORDER, "") == []


def test_text_from_data_is_not_markup():
    odd = row("[red]s[/red]", "[/nothing]", 0.5)
    text = str(show(stage_tables(Result((odd,)), ["[/nothing]", "[red]s[/red]"], "[b]t")))
    for part in ("[red]s[/red]", "[/nothing]", "[b]t"):
        assert part in text


def test_a_value_below_one_is_not_shown_as_one():
    near = Result((row("think_sft", "base", 0.99996), row("think_dpo", "base", 1.0)))
    lines = show(stage_tables(near, ORDER, ""))
    assert lines[4:] == [["think_sft", "0.99996"], ["think_dpo", "1.00000"]]
    exact = Result((row("think_sft", "base", 1.0),))
    assert ["think_sft", "1.000"] in show(stage_tables(exact, ORDER, ""))


def test_a_difference_has_its_sign_and_none_that_is_not_0_looks_like_0():
    of = {"metric": "auroc_difference_stages", "variant": "best_layer"}
    result = Result((
        row("think_sft", "base", 0.25, **of),
        row("think_dpo", "base", -0.0004, **of),
        row("think_dpo", "think_sft", 0.0, **of),
    ))
    tables = stage_tables(result, ORDER, "")
    assert tables[0].title.plain.strip(" ·").startswith("auroc difference · best_layer")
    *_, sft, dpo = show(tables)
    assert sft == ["think_sft", "+0.2500"]
    assert dpo == ["think_dpo", "-0.0004", "+0.0000"]
    similar = Result((row("think_sft", "base", 0.0004), row("think_dpo", "base", -0.2)))
    *_, sft, dpo = show(stage_tables(similar, ORDER, ""))
    assert (sft[1], dpo[1]) == ("0.000", "-0.200")
