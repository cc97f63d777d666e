import dataclasses

import pytest
from markdown_it import MarkdownIt

from olmo_stages.document import Grid
from olmo_stages.markdown import escaped
from olmo_stages.tracking import markdown
from tests import documents


def rendered(text):
    """Tokens of Markdown with tables, as most programs read it."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [inner for token in tokens for inner in [token, *(token.children or ())]]


def words(tokens):
    return [it.content for it in tokens if it.type in {"text", "text_special"}]


HOSTILE = [
    "a | b || c",
    "`code` ``` *bold* _it_ ~~gone~~",
    "![x](http://example.org/x.png) [y](http://example.org) [z]: http://example.org",
    "<img src=http://example.org/x.png> <http://example.org>",
    "$x^2$ $$y$$ \\(z\\) &lt; &#60; \\",
    "- item",
    "+ item",
    "1. item",
    "12) item",
    "# head",
    "> quote",
    "=== ---",
    "--- | ---",
    "two\nlines\r\n\tand a tab",
    ":tada: @someone",
    "quotes \" and ' ",
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("form", ["bullet", "cell", "plain"])
def test_escaped_text_is_shown_as_it_is(text, form):
    shown = " ".join(text.split())
    if form == "cell":
        tokens = rendered(markdown.raw_table(("head",), [[escaped(text)]]))
        assert [it.type for it in tokens].count("td_open") == 1
        words_shown = "".join(words(tokens)).removeprefix("head")
    else:
        source = markdown.bullets([text]) if form == "bullet" else escaped(text)
        tokens = rendered(source)
        words_shown = "".join(words(tokens))
    own = {"text", "text_special", "inline", "paragraph_open", "paragraph_close"}
    own |= {f"{it}_{end}" for it in ("bullet_list", "list_item") for end in ("open", "close")}
    own |= {
        f"{it}_{end}"
        for it in ("table", "thead", "tbody", "tr", "th", "td")
        for end in ("open", "close")
    }
    assert {it.type for it in tokens} <= own
    assert [it.type for it in tokens].count("bullet_list_open") == (form == "bullet")
    assert words_shown == shown


def test_a_name_stays_as_it_is():
    assert escaped("think_sft") == "think_sft"
    assert escaped("_it_ a__b") == "&#95;it&#95; a&#95;&#95;b"


def test_what_is_not_escaped_is_no_text():
    kinds = {it.type for text in HOSTILE for it in rendered(text)}
    assert {"html_inline", "image", "link_open", "heading_open", "code_inline"} <= kinds


def test_a_table_shows_numbers_with_intervals_and_says_what_is_unchanged():
    near, far = (
        dataclasses.replace(documents.row("d", value, "s"), note=note)
        for value, note in ((0.05, ""), (0.5, "few groups"))
    )
    undefined = documents.row("d", float("nan"), "s", ci_low=None, ci_high=None)
    grid = Grid(("stage", "d"), (("a", near), ("b", far), ("c", undefined), ("d", None)))
    text = markdown.table(grid, {near})
    cells = [it.content for it in rendered(text) if it.type == "inline"]
    assert cells[3:10:2] == ["0.050 &#91;-0.050, 0.150&#93; ≈", cells[5], "undefined", "-"]
    assert "0.500" in cells[5]
    assert cells[5].endswith("(a)")
    assert any("(a)&#58; few groups" in it or "(a): few groups" in it for it in cells)
    assert "not distinguishable" in text
    assert "not distinguishable" not in markdown.table(grid)
