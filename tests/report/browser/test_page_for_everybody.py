"""The page of a report in the dark, by keyboard, on a phone, on paper, and to a screen reader."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.report.browser.in_page import (
    COLOURS,
    CONTRASTS,
    FOCUSED,
    PALE,
    TOO_WIDE,
    UNREACHED,
)

DRAWN = 'body[data-figures="drawn"]'
DESK = {"width": 1280, "height": 900}
# A plot is a drawing with a label, and its numbers are in a table; what is inside is plotly's.
LAWFUL = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
OUTSIDE_PLOTS = {"exclude": [[".plot"]]}


def wear(page, scheme):
    """Have the system light or dark, and wait until the plots follow."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(
        "background => getComputedStyle(document.body).backgroundColor === background && "
        "getComputedStyle(document.body).color === "
        "getComputedStyle(document.querySelector('.plot .xtick text')).fill",
        arg={"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme],
    )


# Light and dark


def test_the_theme_button_and_the_system_turn_everything(opened, by_hand):
    with opened(by_hand) as (page, watch):
        page.wait_for_selector(DRAWN, state="attached")
        light = page.evaluate(COLOURS)
        wear(page, "dark")
        dark = page.evaluate(COLOURS)
        assert all(one != other for one, other in zip(light, dark, strict=True))
        wear(page, "light")
        page.locator("#theme").click()  # light
        page.locator("#theme").click()  # dark
        assert page.evaluate(COLOURS) == dark
        page.reload()
        page.wait_for_selector(DRAWN, state="attached")
        assert page.evaluate(COLOURS) == dark, "it is remembered"
        page.locator("#theme").click()  # automatic
        assert page.evaluate(COLOURS) == light
        assert watch.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_of_plots_and_lineage_can_be_read(shown, scheme):
    wear(shown, scheme)
    texts = shown.locator(".plot .xtick text, .plot .ytick text, .infolayer text, .lineage text")
    found = texts.evaluate_all(CONTRASTS)
    wear(shown, "light")
    assert len(found) > 50
    assert {text: ratio for text, ratio in found if ratio < 4.5} == {}


def test_a_pale_text_is_noticed(opened, tmp_path):
    pale = tmp_path / "pale.html"
    pale.write_text(PALE)
    with opened(pale) as (page, _):
        (found,) = page.locator("text").evaluate_all(CONTRASTS)
        assert found == ["pale", pytest.approx(1.61, abs=0.01)]
        named = {it["id"] for it in Axe().run(page).response["violations"]}
    assert {"color-contrast", "image-alt"} <= named


# Without sight, without a mouse


def barriers(page):
    options = {"resultTypes": ["violations"], "runOnly": LAWFUL, "preload": False}
    found = Axe().run(page, OUTSIDE_PLOTS, options).response["violations"]
    worst = [it for it in found if it["impact"] in {"serious", "critical"}]
    return [(it["id"], [node["html"][:90] for node in it["nodes"][:3]]) for it in worst]


def test_axe_finds_no_serious_barrier(shown):
    assert barriers(shown) == []


def test_axe_finds_no_serious_barrier_in_the_dark(opened, by_hand):
    with opened(by_hand, color_scheme="dark") as (page, _):
        page.wait_for_selector(DRAWN, state="attached")
        assert barriers(page) == []


def test_everything_is_reached_by_keyboard_and_seen_there(shown):
    shown.locator("#theme").focus()
    shown.keyboard.press("Shift+Tab")
    for _ in range(600):
        found = shown.evaluate(FOCUSED)
        if found is None or found["again"]:
            break
        assert found["seen"], found["what"]
        assert found["inside"], found["what"]
        shown.keyboard.press("Tab")
    assert shown.evaluate(UNREACHED) == []


def test_the_skip_link_leads_past_the_contents(opened, by_hand):
    with opened(by_hand) as (page, _):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "skip"
        assert page.locator("#skip").bounding_box()["x"] >= 0
        page.keyboard.press("Enter")
        assert page.evaluate("location.hash") == "#main"
        page.keyboard.press("Tab")
        assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_numbers_tell_more_on_hover_and_on_focus(shown):
    mark = shown.locator('.lineage .mark[data-state="differs"]').first
    mark.scroll_into_view_if_needed()
    mark.hover()
    tip = shown.locator("#tip")
    said = tip.inner_text()
    assert "n = 40 in 10 groups" in said
    assert re.search(r"\d\.\d+ \[", said)
    shown.keyboard.press("Escape")
    assert not tip.is_visible()
    mark.focus()
    assert tip.inner_text() == said
    assert mark.get_attribute("aria-describedby") == "tip"
    mark.evaluate("it => it.blur()")


def test_without_scripts_everything_but_the_plots_is_there(opened, written):
    with opened(written, java_script_enabled=False) as (page, watch):
        text = page.locator("body").inner_text()
        assert "need JavaScript" in text
        assert page.locator(".lineage .mark .value").count() > 20
        assert page.locator("#lead tbody tr").count() > 10
        assert watch.complaints == []


# On paper and on a phone


def test_it_prints_light_and_without_controls(opened, by_hand):
    with opened(by_hand, color_scheme="dark") as (page, watch):
        page.wait_for_selector(DRAWN, state="attached")
        plots = page.locator("figure .plot svg.main-svg")
        assert len(page.pdf()) > 20_000
        page.emulate_media(media="print", color_scheme="dark")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        controls = page.locator("button, input, nav, .modebar, #tip, #skip")
        seen = controls.evaluate_all("all => all.filter(it => it.checkVisibility()).length")
        assert seen == page.locator("th button").count()  # heads of columns, which are text
        assert plots.first.is_visible()
        assert paper in {"rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"}
        assert watch.complaints == []


def test_nothing_is_wider_than_the_paper(opened, written):
    paper = {"width": 700, "height": 1000}  # A4 less its margins
    with opened(written, java_script_enabled=False, viewport=paper) as (page, _):
        page.emulate_media(media="print")
        wide = page.locator("svg.lineage, table.grid, pre").evaluate_all(TOO_WIDE, 700)
    assert wide == []


def test_a_phone_scrolls_no_page_sideways(shown):
    shown.set_viewport_size({"width": 390, "height": 800})
    shown.wait_for_timeout(300)
    width = shown.evaluate("document.documentElement.scrollWidth")
    plots = shown.locator(".plot").evaluate_all("them => them.map(it => it.scrollWidth)")
    shown.set_viewport_size(DESK)
    assert width <= 390
    assert max(plots) <= 390


def test_what_is_wider_than_its_place_says_so_and_keeps_its_first_column(opened, by_hand):
    with opened(by_hand, viewport={"width": 390, "height": 800}) as (page, _):
        place = page.locator("#lead .scroll")
        place.scroll_into_view_if_needed()
        page.wait_for_selector("#lead .scroll[data-more='right']")
        first = place.locator("tbody th").first
        before = first.bounding_box()["x"]
        place.evaluate("it => { it.scrollLeft = 60 }")
        page.wait_for_selector("#lead .scroll[data-more~='left']")
        assert first.bounding_box()["x"] == before
        page.set_viewport_size({"width": 1600, "height": 800})
        page.wait_for_selector("#lead .scroll[data-more='']")


def test_a_phone_shows_the_numbers_of_the_lineage(opened, by_hand):
    with opened(by_hand, viewport={"width": 390, "height": 800}) as (page, _):
        assert not page.locator("#lineage .wide").is_visible()
        values = page.locator("#lineage .narrow .value .main")
        ends = values.evaluate_all("them => them.map(it => it.getBoundingClientRect().right)")
        assert ends
        assert max(ends) <= 390
        page.set_viewport_size(DESK)
        assert page.locator("#lineage .wide").is_visible()
        assert not page.locator("#lineage .narrow").first.is_visible()
