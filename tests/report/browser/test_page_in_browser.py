"""The page of a report as a reader meets it: figures, their rows, tables, and texts from data."""

import re

import pandas as pd
import pytest
from playwright.sync_api import TimeoutError

from tests.documents import HOSTILE
from tests.report.browser.in_page import COUNTED, KEYS, LEGENDS, ROWLESS, SORTED
from tests.report.swept import ENDS, OWN, TEMPLATE

LARGEST = 6_000_000
BAD = f"{HOSTILE} {ENDS} {TEMPLATE}"


# The watch itself


def test_the_watch_notices_requests_errors_and_complaints(opened, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><img src='https://example.com/a.png'><script>console.warn('careful');"
        "setTimeout(() => { throw new Error('broken') }, 0)</script>"
    )
    with opened(bad) as (page, watch):
        page.wait_for_function("document.images[0].complete")
        page.wait_for_timeout(50)
    assert watch.requests == [bad.as_uri(), "https://example.com/a.png"]
    assert {"console warning: careful", "error: broken"} <= set(watch.complaints)


def test_an_empty_plot_counts_as_nothing(opened, tmp_path):
    empty = tmp_path / "empty.html"
    empty.write_text(
        "<!doctype html><div class='plot'><svg class='scatterlayer'><path class='point'/></svg>"
    )
    with opened(empty) as (page, _):
        found = page.locator(".plot").evaluate(COUNTED)
    assert (found["traces"], found["marks"]) == (0, 0)


def test_the_file_is_small_enough_to_send(written):
    assert written.stat().st_size < LARGEST


# Figures


def assert_drawn(figure):
    """Something of every figure is to be seen, unless nothing of it is defined."""
    name = figure.get_attribute("id"), figure.get_attribute("data-shown")
    found = figure.locator(".plot").evaluate(COUNTED)
    assert figure.get_attribute("data-state") == "drawn", name
    assert found["width"] > 200, name
    assert found["height"] > 200, name
    assert found["marks"] > 0 or not found["traces"], name
    return found["traces"]


def test_every_figure_is_drawn(shown):
    figures = shown.locator("figure.figure").all()
    assert len(figures) >= 8
    assert all(assert_drawn(it) for it in figures)


def test_every_alternative_of_a_figure_is_drawn(shown):
    for analysis in ("probe", "cka", "cosine"):
        figures = shown.locator(f'section[data-analysis="{analysis}"] figure.figure')
        figure = figures.filter(has=shown.locator("select.choice")).first
        menu = figure.locator("select.choice")
        names = menu.locator("option").all_text_contents()
        assert any(OWN in name for name in names)
        for index in [*range(len(names)), 0]:
            menu.select_option(index=index)
            assert figure.get_attribute("data-shown") == names[index]
            assert_drawn(figure)


def test_every_view_of_a_figure_is_drawn(shown):
    figures = shown.locator("figure.figure:has(select.view)")
    menu = figures.first.locator("select.view").first
    for index in [*range(menu.locator("option").count()), 0]:
        menu.select_option(index=index)
        assert assert_drawn(figures.first)


def test_a_legend_lies_below_the_title_of_its_axis(shown):
    found = shown.locator("figure.figure").evaluate_all(LEGENDS)
    assert len(found) > 3
    assert all(it["title"] <= it["legend"] for it in found), found
    assert all(it["legend_end"] <= it["end"] + 1 and it["axes"] > 200 for it in found), found


def test_the_caption_is_that_of_the_alternative(shown):
    figure = shown.locator("figure.figure:has(select.choice)").first
    menu, caption = figure.locator("select.choice"), figure.locator("figcaption")
    menu.select_option(index=1)
    figure.evaluate("it => { it.querySelector('figcaption').textContent = 'stale' }")
    menu.select_option(index=0)
    assert len(caption.inner_text()) > 40


def hovered(page, figure, marks):
    """Text of plotly's label at the middle of a mark that lies free."""
    figure.scroll_into_view_if_needed()
    for mark in figure.locator(marks).all():
        box = mark.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.move(x + 1, y)
        label = figure.locator(".hoverlayer .hovertext")
        try:
            label.first.wait_for(timeout=1000)
        except TimeoutError:
            continue
        return " ".join(label.all_text_contents())
    raise AssertionError("no label shows")


def test_a_point_says_what_is_known_of_it(shown):
    figure = shown.locator('section[data-analysis="probe"] figure.figure').first
    said = hovered(shown, figure, ".scatterlayer path.point")
    found = re.search(r"(\d\.\d+) \[(\d\.\d+), (\d\.\d+)\]", said)
    assert found, said
    value, low, high = map(float, found.groups())
    assert 0 <= low <= value <= high <= 1
    assert "n = 40" in said
    assert "10 groups" in said or "groups = 10" in said
    assert re.search(r"p = 0\.\d", said), said
    assert "sliding attention" in said or "full attention" in said


def test_a_cell_says_what_is_known_of_it(shown):
    figures = shown.locator('section[data-analysis="cka"] figure.figure')
    figure = figures.filter(has=shown.locator(".heatmaplayer image")).first
    said = hovered(shown, figure, ".heatmaplayer image")
    assert re.search(r"0\.\d{2}", said), said
    assert "n = 40" in said


# What comes from data


def test_hostile_text_stays_text(shown):
    assert shown.evaluate("window.hacked") is None
    scripts = shown.locator("script").evaluate_all("them => them.map(it => it.textContent)")
    assert len(scripts) == 2 + shown.locator("script.packed").count()
    assert not any(it.lstrip().startswith("window.hacked") for it in scripts)
    assert BAD in shown.locator("main").inner_text()
    labels = shown.locator(".lineage .stage").evaluate_all("all => all.map(it => it.dataset.stage)")
    assert OWN in labels


def test_hostile_text_stays_text_in_plots_and_their_labels(shown):
    tokens = shown.locator('section[data-analysis="projection"] figure.figure').last
    assert "%{x}" in hovered(shown, tokens, ".heatmaplayer image")
    # Only plotly's own elements: a text of data makes none.
    inside = shown.locator(".plot :is(script, b, style, textarea, iframe, img)")
    assert inside.count() == 0
    assert shown.evaluate("window.hacked") is None


def test_hostile_text_stays_text_in_the_rows(shown):
    figure = shown.locator('section[data-analysis="cosine"] figure.figure').first
    figure.locator("button.rows").click()
    dialog = shown.locator("#data")
    assert BAD in dialog.inner_text()
    assert dialog.locator("script").count() == 0
    dialog.locator(".close").click()


# Tables


def assert_sorted(keys, order, where):
    """Numbers ascend or descend, texts are together on one side, and undefined ones come last."""
    known = [it for it in keys if it is not None and it != ""]
    assert not any(keys[len(known) :]), where
    numbers = [it for it in known if not isinstance(it, str)]
    assert numbers in (known[: len(numbers)], known[len(known) - len(numbers) :]), where
    assert numbers == sorted(numbers, reverse=order == "descending"), where


def test_every_column_of_every_table_sorts(shown):
    found = shown.locator("main table.grid").evaluate_all(SORTED)
    assert len({it["table"] for it in found}) > 5
    for it in found:
        assert it["heads"] == 1, it["head"]
        assert_sorted(it["keys"], it["order"], it["head"])
        assert sorted(map(str, it["keys"])) == sorted(map(str, it["before"])), it["head"]
    # Were they sorted as texts, some would stand otherwise.
    numeric = [
        it["keys"] for it in found if all(isinstance(key, float | int) for key in it["keys"])
    ]
    assert any(sorted(map(str, keys)) != [*map(str, sorted(keys))] for keys in numeric)
    assert any(None in it["keys"] for it in found), "nothing undefined was sorted"


def test_a_table_sorts_by_click_and_by_keyboard(shown):
    table = shown.locator("#lead table.grid")
    before = table.locator("tbody").inner_text()
    head = table.locator("thead th").nth(2)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert_sorted(table.locator("tbody").evaluate(KEYS, 2), "ascending", "click")
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert_sorted(table.locator("tbody").evaluate(KEYS, 2), "descending", "keyboard")
    assert table.locator("tbody").inner_text() != before


def test_texts_sort_by_the_numbers_in_them(opened, by_hand):
    given = ["step 10", "-0.5 [a]", "step 9", "0.25", "1.10.2", "1.9.0", "-2", "step-3", "0.125 x"]
    with opened(by_hand) as (page, _):
        sorted_texts = page.locator("#lead table.grid").evaluate(
            """(table, texts) => {
              table.tBodies[0].innerHTML = "";
              for (const it of texts) table.tBodies[0].insertRow().insertCell().textContent = it;
              table.querySelector("thead button").click();
              return [...table.tBodies[0].rows].map(it => it.textContent);
            }""",
            given,
        )
    wanted = ["-2", "-0.5 [a]", "0.125 x", "0.25", "1.9.0", "1.10.2", "step 9", "step 10", "step-3"]
    assert sorted_texts == wanted


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        ([2.0, 10.0, None, 11.0], "ascending"),
        ([10.0, 2.0], "ascending"),
        ([1.0, 2.0], "descending"),
    ],
)
def test_a_table_out_of_order_is_noticed(keys, order):
    with pytest.raises(AssertionError):
        assert_sorted(keys, order, "")


# Rows behind figures


def unmeasured(saved, frame):
    """Rows of a file that are no row of the sweep's table, or have other numbers there."""
    names = ["metric", "stage", "reference", "layer", "reference_layer", "variant", "trait"]
    names = [name for name in names if name in saved]
    numbers = ["value", "ci_low", "ci_high", "null", "p", "p_max", "q", "n", "n_groups"]
    numbers = [name for name in numbers if name in saved]

    def keyed(table):
        texts = table[names].astype(object).where(table[names].notna(), "")
        texts = texts.map(lambda it: str(int(it)) if isinstance(it, float) else str(it))
        return pd.concat([texts, table[numbers].astype(float)], axis=1)

    joined = keyed(saved).reset_index().merge(keyed(frame), on=names, suffixes=("", "_measured"))
    for name in numbers:
        one, other = joined[name], joined[f"{name}_measured"]
        same = ((one - other).abs() <= 1e-6 * other.abs() + 1e-12) | (one.isna() & other.isna())
        joined = joined[same]
    return saved[~saved.index.isin(joined["index"])]


def test_every_figure_has_its_rows_one_click_away(shown):
    assert shown.locator("figure.figure").evaluate_all(ROWLESS) == []
    shown.locator("figure.figure button.rows").first.click()
    dialog = shown.locator("#data")
    assert dialog.is_visible()
    assert dialog.locator("tbody tr").count() > 3
    shown.keyboard.press("Escape")
    assert not dialog.is_visible()


@pytest.mark.parametrize("analysis", ["probe", "cka", "cosine"])
def test_the_file_of_a_figure_has_the_numbers_that_were_measured(shown, frame, analysis):
    figure = shown.locator(f'section[data-analysis="{analysis}"] figure.figure').first
    figure.locator("button.rows").click()
    dialog = shown.locator("#data")
    with shown.expect_download() as download:
        dialog.locator("button.csv").click()
    dialog.locator("button.close").click()
    saved = pd.read_csv(download.value.path(), keep_default_na=False, na_values=[""])
    assert len(saved) > 3
    missing = unmeasured(saved, frame)
    assert missing.empty, missing.head(3).to_dict("records")
    changed = saved.assign(value=saved["value"] + 1e-4)
    assert len(unmeasured(changed, frame)) == saved["value"].notna().sum()


def test_every_figure_says_what_it_is_made_of(shown):
    for figure in shown.locator("figure.figure").all():
        caption = figure.locator("figcaption").inner_text()
        assert len(caption) > 40, caption
        assert re.search(r"interval|null|resampl|not resampled", caption), caption
