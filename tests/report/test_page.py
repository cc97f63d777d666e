"""The page as HTML: what it holds, that it is one file, and that texts of the data stay text."""

import base64
import gzip
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources

import pandas as pd
import pytest

from olmo_stages.document import Choice, Edge, Figure, Grid, Node, Section, Shift, Study
from olmo_stages.report.lead import placed
from olmo_stages.report.page import render, write
from olmo_stages.report.page.cells import letter, table
from olmo_stages.report.page.lineage import lineage, narrow_lineages
from olmo_stages.report.page.packed import Packed, packed
from olmo_stages.report.page.said import Said, gathered
from olmo_stages.report.page.shortened import cut, cut_apart, width
from tests import documents
from tests.documents import CKA, PROBE, row, study

PAYLOADS = [
    documents.HOSTILE,
    '"><img src=x onerror=alert(1)>',
    "' onfocus='alert(1)' autofocus='",
    "</script><script>alert(1)</script>",
    "<!--",
    "</style></title></textarea>",
    "{{ 7 * 7 }}{% raw %}",
    "%{x}&lt;b&gt;",
    "\u202e\u0631\u0633\u0627\u0644\u0629 \U0001f642",
    "x" * 300,
]
VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """Elements of a page, and what is written in it outside of scripts and styles."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] == ["script"]:
            attrs, before = self.scripts[-1]
            self.scripts[-1] = (attrs, before + data)
        elif self._open[-1:] != ["style"]:
            self.text += data

    def having(self, name: str) -> list[str | None]:
        return [attrs[name] for _, attrs in self.elements if name in attrs]

    @property
    def running(self) -> list[str]:
        return [text for attrs, text in self.scripts if "type" not in attrs]


def nothing() -> Study:
    """A study of a sweep of which nothing is known."""
    given = study()
    return replace(
        given, asked="", question="", prediction="", findings=(), nodes=(), edges=(),
        lead=Grid((), ()), sections=(), problems=(), warnings=(), commands=(), sources=(),
        versions={}, sweeps=(),
    )  # fmt: skip


def unpacked(text: str) -> dict:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def section_of(rows: Sequence[pd.DataFrame], plotly: str = '{"data":[],"layout":{}}') -> Section:
    """A section of a figure for each frame of rows, or of one without."""
    figures = tuple(
        Figure(f"f{index}", "f", "", (Choice("", plotly, it),))
        for index, it in enumerate(rows or [pd.DataFrame()])
    )
    return Section("s", "probe", "d", "t", "", (), Grid((), ()), figures)


def tables(pack: Packed) -> list[dict]:
    return unpacked(pack.tables)["tables"]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(study()))


def everywhere(payload: str, monkeypatch) -> Page:
    """A page that holds a text wherever text of the data comes in."""
    monkeypatch.setattr(documents, "HOSTILE", payload)
    given = study()
    source = replace(given.sources[0], stage=payload, folder=payload, tracked=payload, code=payload)
    given = replace(given, sources=(source,), versions={payload: payload}, sweeps=(payload,))
    return Page(render(given))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_text_of_the_data_stays_text(payload, monkeypatch, page):
    shown = everywhere(payload, monkeypatch)
    harmless = everywhere("harmless", monkeypatch)
    assert (
        shown.text.count(payload) >= harmless.text.count("harmless") - 6
    )  # labels of three drawings are cut
    assert [tag for tag, _ in shown.elements] == [tag for tag, _ in harmless.elements]
    known = {name for _, attrs in page.elements for name in attrs}
    assert {name for _, attrs in shown.elements for name in attrs} <= known


def test_plotly_is_in_it_once(page):
    from plotly.offline import get_plotlyjs

    assert sum(get_plotlyjs() == text for text in page.running) == 1
    assert len(page.running) == 2


def test_a_page_without_figures_needs_no_plotly():
    assert len(render(nothing())) < 100_000


def test_only_the_scripts_of_the_page_may_run(page):
    policy = next(attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs)
    assert policy is not None
    allowed = policy.split("script-src ")[1].split(";")[0].split()
    digests = [hashlib.sha256(text.encode()).digest() for text in page.running]
    assert allowed == [f"'sha256-{base64.b64encode(it).decode()}'" for it in digests]
    assert policy.startswith("default-src 'none'")


def test_nothing_is_loaded_from_elsewhere(page):
    assert page.having("src") == []
    assert all(it and it.startswith(("#", "data:,")) for it in page.having("href"))
    style = resources.files("olmo_stages.report.page") / "page.css"
    assert "url(" not in style.read_text("utf-8")


def test_figures_are_never_offered_to_a_cloud(page):
    assert "showSendToCloud: false" in page.running[0]
    assert 'plotlyServerURL: ""' in page.running[0]


def test_ids_are_unique_and_what_refers_to_one_finds_it(page):
    ids = page.having("id")
    assert len(ids) == len(set(ids))
    links = [it for it in page.having("href") if it is not None and it.startswith("#")]
    assert {it[1:] for it in links} | set(page.having("aria-labelledby")) <= set(ids)


def test_every_section_and_figure_has_an_anchor(page):
    assert {"section-probe-truth", "section-cka-truth", "lineage", "lead", "problems"} <= set(
        page.having("id")
    )
    assert {"figure-probe-truth.auroc", "figure-probe-truth.auroc-all", "figure-cka-truth.map"} <= (
        set(page.having("id"))
    )


def test_a_figure_with_several_choices_has_a_select(page):
    choices = [attrs for tag, attrs in page.elements if attrs.get("class") == "choice"]
    assert len(choices) == 1
    options = [tag for tag, _ in page.elements].count("option")
    assert options == 2


def test_failed_jobs_come_before_the_numbers(page):
    ids = [it for it in page.having("id") if it in {"findings", "problems", "lineage", "lead"}]
    assert ids == ["findings", "problems", "lineage", "lead"]
    assert "1 job without a result" in page.text
    assert "python run.py -m" in page.text


def test_a_study_of_nothing_has_a_page():
    shown = Page(render(nothing()))
    assert "no job has a result" in shown.text
    assert not {"lineage", "lead", "problems"} & set(shown.having("id"))


def test_a_study_of_failed_jobs_has_a_page():
    shown = Page(render(replace(nothing(), problems=study().problems)))
    assert "problems" in shown.having("id")
    assert "no job has a result" in shown.text


def test_an_address_is_a_link_and_other_text_is_not():
    source = study().sources[0]
    given = [
        replace(source, tracked=it)
        for it in ("https://wandb.ai/me/x/runs/1", "javascript:alert(1)", "https://x y")
    ]
    shown = Page(render(replace(study(), sources=tuple(given))))
    links = [
        it for it in shown.having("href") if it is not None and not it.startswith(("#", "data"))
    ]
    assert links == ["https://wandb.ai/me/x/runs/1"]
    assert "javascript:alert(1)" in shown.text


def test_the_same_study_is_the_same_page():
    assert render(study()) == render(study())


def test_a_page_is_written_whole_and_in_utf8(tmp_path):
    path = tmp_path / "report" / "index.html"
    write(replace(nothing(), title="\ud800 stage \U0001f642"), path)
    assert "? stage \U0001f642" in path.read_text("utf-8")
    assert [it.name for it in path.parent.iterdir()] == ["index.html"]


def test_what_the_page_is_made_of_is_in_the_package():
    found = {it.name for it in resources.files("olmo_stages.report.page").iterdir()}
    assert {"page.html.jinja", "parts.html.jinja", "page.css", "page.js"} <= found


# ---- rows behind a figure


def test_numbers_keep_seven_digits():
    rows = pd.DataFrame({"value": [0.123456789, 123456789.0, 1e-12], "n": [1, 2, 3]})
    plotly = '{"data":[{"y":[0.123456789,0.999999949,-1.23456789e-9,3]}],"layout":{}}'
    pack = packed(section_of([rows], plotly))
    assert tables(pack) == [{"value": [0.1234568, 123456800.0, 1e-12], "n": [1, 2, 3]}]
    (choice,) = unpacked(pack.figures[0])["choices"]
    assert choice["figure"]["data"] == [{"y": [0.1234568, 0.9999999, -1.234568e-09, 3]}]


def test_times_in_a_figure_stay_whole():
    plotly = '{"data":[{"x":[1732233600123.5,1732233600124.5]}],"layout":{}}'
    (choice,) = unpacked(packed(section_of([], plotly)).figures[0])["choices"]
    assert choice["figure"]["data"] == [{"x": [1732233600123.5, 1732233600124.5]}]


def test_undefined_and_infinite_values_survive():
    values = [math.nan, math.inf, -math.inf, 0.0]
    rows = pd.DataFrame({"value": values, "layer": pd.array([1, None, 3, 4], dtype="Int64")})
    assert tables(packed(section_of([rows]))) == [
        {"value": [None, "Infinity", "-Infinity", 0.0], "layer": [1, None, 3, 4]}
    ]


def test_what_all_rows_share_is_written_once():
    rows = pd.DataFrame({"stage": ["a", "a"], "layer": [1, 2], "p": [None, math.nan]})
    shown = {"stage": {"all": "a"}, "layer": [1, 2], "p": {"all": None}}
    assert tables(packed(section_of([rows]))) == [shown]


def test_figures_of_the_same_rows_share_them():
    rows = pd.DataFrame({"stage": list("abcd"), "value": [1.0, math.nan, 3.0, math.nan]})
    other = pd.DataFrame({"token": ["x"]})
    pack = packed(section_of([rows, rows.iloc[[3, 0, 1]], other, rows.iloc[:0]]))
    assert tables(pack) == [
        {"stage": list("abcd"), "value": [1.0, None, 3.0, None]},
        {"token": {"all": "x"}},
    ]
    assert [it["rows"] for figure in pack.figures for it in unpacked(figure)["choices"]] == [
        {"table": 0, "runs": [0, 4]},
        {"table": 0, "runs": [3, 1, 0, 2]},
        {"table": 1, "runs": [0, 1]},
        None,
    ]


def test_rows_that_differ_in_anything_are_kept_apart():
    rows = pd.DataFrame({"stage": ["a", "a"], "note": ["", None]})
    assert tables(packed(section_of([rows, rows.assign(stage="b")]))) == [
        {"stage": list("aabb"), "note": ["", None, "", None]}
    ]


def test_without_rows_there_are_no_tables():
    assert packed(section_of([pd.DataFrame()])).tables == ""


def test_a_figure_that_is_no_json_costs_only_itself():
    assert unpacked(packed(section_of([], "no json")).figures[0])["choices"][0]["figure"] is None
    nan = '{"data":[{"y":[1,NaN]}],"layout":{"template":{},"title":{"text":"t"}}}'
    found = unpacked(packed(section_of([], nan)).figures[0])["choices"][0]["figure"]
    assert found == {"data": [{"y": [1, None]}], "layout": {"title": {"text": "t"}}}


def test_packed_data_holds_nothing_that_html_knows():
    pack = packed(section_of([pd.DataFrame({"note": ["</script><!--", documents.HOSTILE]})]))
    for text in (pack.tables, *pack.figures):
        assert text.replace("+", "").replace("/", "").rstrip("=").isalnum()


# ---- cells


def test_a_number_is_sorted_by_its_value_and_undefined_has_none():
    cells = (row("m", -0.25, "s"), row("m", math.nan, "s"), 3, 0.5, None, "text")
    shown = table(Grid(tuple("abcdef"), (cells,))).rows[0]
    assert [it.sort for it in shown] == ["-0.25", "", "3", "0.5", "", None]
    assert [it.text for it in shown] == ["-0.250", "undefined", "3", "0.500", "-", "text"]
    assert shown[0].interval == "[-0.350, -0.150]"
    assert shown[1].interval == ""


def test_a_number_tells_what_is_known_of_it():
    shown = table(Grid(("a",), ((row("m", 0.5, "s", null=0.4, p=0.01, p_max=0.02, q=0.03),),)))
    assert shown.rows[0][0].tip == (
        "n = 80 in 16 groups",
        "against the null: its median is 0.400, p = 0.01, p = 0.02 over all that was tried, "
        "false discovery rate 0.03",
    )
    bare = replace(row("m", 0.5, "s"), n=0, n_groups=0)
    assert table(Grid(("a",), ((bare,),))).rows[0][0].tip == ()


def test_notes_are_below_the_table_each_once():
    rows = [(row("m", 0.5, "s", note=it),) for it in ("one", "two", "one", "")]
    shown = table(Grid(("a",), tuple(rows)))
    assert shown.notes == (("a", "one"), ("b", "two"))
    assert [it[0].marks for it in shown.rows] == ["a", "b", "a", ""]


def test_a_column_is_numeric_if_all_that_is_known_in_it_is():
    shown = table(Grid(("a", "b", "c"), ((1, "x", None), (None, 2, None))))
    assert shown.heads == (("a", True), ("b", False), ("c", False))


def test_only_long_tables_can_be_filtered():
    assert table(Grid(("a",), tuple((it,) for it in range(16)))).long
    assert not table(Grid(("a",), tuple((it,) for it in range(15)))).long


def test_letters_go_on_after_z():
    assert [letter(it) for it in (0, 25, 26, 27, 52, 702)] == ["a", "z", "aa", "ab", "ba", "aaa"]


# ---- lineage


def drawn(nodes: tuple[Node, ...], edges: tuple[Edge, ...] = ()):
    return lineage(replace(study(), nodes=nodes, edges=edges))


def marks_of(*shifts: Shift):
    edges = (Edge("base", "sft", shifts),)
    return drawn((Node("base", "", measured=False), Node("sft", "base", measured=True)), edges)


def test_a_stage_stands_below_its_parent_and_to_its_right():
    names = [("base", ""), ("a", "base"), ("b", "base"), ("a1", "a"), ("a2", "a1")]
    found = drawn(tuple(Node(name, parent, measured=True) for name, parent in names)).rows
    assert [it.whole for it in found] == ["base", "a", "a1", "a2", "b"]
    assert [it.y for it in found] == sorted({it.y for it in found})
    by_name = {it.whole: it for it in found}
    for name, parent in names[1:]:
        assert by_name[name].stem == by_name[parent].x < by_name[name].x
        assert by_name[name].y <= by_name[parent].reach
    assert by_name["base"].stem is None
    assert by_name["base"].reach == by_name["b"].y


def test_a_stage_without_a_known_parent_is_a_root_and_a_circle_is_drawn_once():
    found = drawn((Node("a", "gone", measured=True), Node("b", "c", measured=True),
                   Node("c", "b", measured=True)))  # fmt: skip
    assert sorted(it.whole for it in found.rows) == ["a", "b", "c"]
    assert [it.stem is None for it in found.rows] == [True, True, False]


def test_a_mark_says_whether_its_interval_holds_the_unchanged_value():
    rows = [
        row("m", -0.05, "sft"),
        row("m", -0.3, "sft"),
        replace(row("m", 0.2, "sft"), ci_low=None),
    ]
    for given, state in zip(rows, ("holds", "differs", "open"), strict=True):
        mark = marks_of(Shift(PROBE, "probe-truth", given)).rows[1].marks[0]
        assert mark.state == state
        assert (mark.low is None) == (state == "open")


def test_an_unknown_number_says_why():
    long = "its job was killed after three hours because the disk was full"
    found = marks_of(Shift(PROBE, "probe-truth", None, "its job failed"),
                     Shift(CKA, "cka-truth", None, long))  # fmt: skip
    short, cut = found.rows[1].marks
    assert (short.state, short.text, short.note) == ("unknown", "- its job failed", "")
    assert cut.text.endswith("…")
    assert found.notes == ((cut.note, long),)


def test_a_number_without_value_is_no_point():
    mark = marks_of(Shift(PROBE, "probe-truth", row("m", math.nan, "sft"))).rows[1].marks[0]
    assert (mark.state, mark.text, mark.at) == ("unknown", "undefined", None)


def test_a_similarity_whose_interval_lies_above_that_of_equal_models_is_said_to():
    change = replace(CKA, reverse="same")
    told = {}
    for low in (1.01, 0.99):
        number = replace(row("m", 1.02, "sft"), ci_low=low, ci_high=1.03)
        mark = marks_of(Shift(change, "cka-truth", number)).rows[1].marks[0]
        told[low] = (mark.state, mark.said[1])
    above = "the interval lies above 1, which a correction for noise can do: no sign of change"
    assert told[1.01] == ("holds", above)
    assert told[0.99] == ("holds", "the interval holds 1: indistinguishable from unchanged")


def test_numbers_of_a_column_share_a_scale_that_holds_the_unchanged_value():
    low = replace(row("m", 0.0, "a"), ci_low=0.0, ci_high=0.0)
    edges = tuple(
        Edge("base", it.stage, (Shift(CKA, "cka-truth", it),))
        for it in (low, row("m", 0.5, "b"), row("m", 0.75, "c"))
    )
    names = ("base", "a", "b", "c")
    found = drawn(
        tuple(Node(it, "base" if it != "base" else "", measured=True) for it in names), edges
    )
    column = found.columns[0]
    places = [it.marks[0].at for it in found.rows[1:]]
    assert 0 < places[0] < places[1] < places[2] < column.zero < found.scale
    assert places[2] - places[1] == pytest.approx((places[1] - places[0]) / 2, abs=0.1)
    strands = [it.marks[0].strand for it in found.rows[1:]]
    assert strands == [5.0, 3.0, 2.0]


def test_a_caveat_is_a_note_of_its_number():
    given = Shift(PROBE, "probe-truth", row("m", 0.5, "sft", note="noted"), "a caveat")
    found = marks_of(given)
    assert found.notes == (("a", "a caveat"), ("b", "noted"))
    assert found.rows[1].marks[0].note == "a b"
    assert {"a caveat", "noted"} <= set(found.rows[1].marks[0].said)


def test_columns_of_one_name_are_told_apart_by_their_section():
    once = marks_of(Shift(PROBE, "probe-truth", row("m", 0.5, "sft"))).columns
    assert [it.about for it in once] == [""]
    shifts = [Shift(PROBE, key, row("m", 0.5, "sft")) for key in ("probe-truth", "cka-truth")]
    twice = marks_of(*shifts).columns
    assert len({it.about for it in twice}) == 2


def test_a_long_label_is_cut_and_kept_whole_beside():
    found = drawn((Node("x" * 300, "", measured=True), Node("模" * 300, "", measured=True))).rows
    assert [len(it.label) for it in found] == [30, 15]
    assert [len(it.whole) for it in found] == [300, 300]


def test_a_chain_of_checkpoints_stays_narrow():
    names = ["base", *(f"step{it}" for it in range(10))]
    nodes = [Node(it, names[i - 1] if i else "", measured=True) for i, it in enumerate(names)]
    found = drawn(tuple(nodes)).rows
    assert found[-1].x < 400
    assert len({it.x for it in found}) == len(found)


# ---- scales


def column_of(*numbers: tuple[float, float | None, float | None]):
    """The drawing of stages below base with these numbers and intervals, the unchanged value 0."""
    stages = [f"s{index}" for index in range(len(numbers))]
    rows = [
        replace(row("m", value, stage), ci_low=low, ci_high=high)
        for stage, (value, low, high) in zip(stages, numbers, strict=True)
    ]
    edges = tuple(Edge("base", it.stage, (Shift(PROBE, "probe-truth", it),)) for it in rows)
    nodes = (Node("base", "", measured=True), *(Node(it, "base", measured=True) for it in stages))
    found = drawn(nodes, edges)
    return found, [it.marks[0] for it in found.rows[1:]]


NARROW = [(0.001, -0.001, 0.003), (-0.002, -0.004, 0.0), (0.002, 0.001, 0.004)]


def test_a_number_without_an_interval_does_not_stretch_the_scale():
    found, marks = column_of(*NARROW, (0.9, None, None), (-0.9, None, None))
    assert found.leaves
    assert [it.leaves for it in marks] == [(False, False)] * 3 + [(False, True), (True, False)]
    assert [it.at is None for it in marks] == [False] * 3 + [True] * 2
    ends = [it.at for it in marks[1:3] if it.at is not None]
    assert ends[1] - ends[0] > found.scale / 3
    alone, marks = column_of((0.9, None, None), (-0.9, None, None))
    assert not alone.leaves
    assert None not in [it.at for it in marks]


def test_a_huge_interval_leaves_the_scale_where_most_are_short():
    huge = (0.0, -0.5, 0.5)
    found, marks = column_of(*NARROW, huge)
    assert marks[3].leaves == (True, True)
    assert (marks[3].low, marks[3].high) == (0.0, found.scale)
    assert marks[3].at is not None
    assert not any(any(it.leaves) for it in marks[:3])
    found, marks = column_of(NARROW[0], huge, huge, huge)
    assert not found.leaves


def test_numbers_of_a_column_have_the_decimals_of_the_closest():
    _, marks = column_of((0.1, 0.05, 0.2), (0.0004, 0.0003, 0.0006))
    assert [f"{it.text} {it.interval}" for it in marks] == [
        "0.1000 [0.0500, 0.2000]",
        "0.0004 [0.0003, 0.0006]",
    ]


def test_a_note_is_said_once():
    given = Shift(PROBE, "probe-truth", row("m", 0.5, "sft", note="noted"), "noted")
    mark = marks_of(given).rows[1].marks[0]
    assert (mark.said.count("noted"), mark.note) == (1, "a")


# ---- room


def test_labels_are_cut_until_all_columns_have_room():
    long = "a_stage_with_quite_a_long_name"
    nodes = (Node("base", "", measured=True), Node(long, "base", measured=True))
    few = (Shift(PROBE, "probe-truth", row("m", 0.5, long)),)
    one = drawn(nodes, (Edge("base", long, few),))
    assert one.rows[1].label == long
    four = drawn(nodes, (Edge("base", long, few * 4),))
    assert len(four.rows[1].label) < len(long)
    assert four.rows[1].whole == long


def test_a_phone_has_a_drawing_for_each_number():
    found = narrow_lineages(study())
    wide = lineage(study())
    assert [it.columns for it in found] == [(it,) for it in wide.columns]
    assert all(it.width < 400 < wide.width for it in found)
    assert {mark.column for mark in found[1].rows[-1].marks} <= {1}
    bare = narrow_lineages(replace(study(), edges=()))
    assert [it.columns for it in bare] == [()]


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["short", "also"], ["short", "also"]),
        (["a long text one", "b long text two"], ["a long…", "b long…"]),
        (["same start one", "same start two"], ["sam…one", "sam…two"]),
        (["same as 1 the same", "same as 2 the same"], ["1 same…", "2 same…"]),
    ],
)
def test_texts_are_told_apart_where_they_are_cut(texts, shown):
    assert list(cut_apart(texts, 7).values()) == shown
    assert all(width(it) <= 7 for it in shown)


def test_wide_characters_count_twice():
    assert cut("\u6f22\u5b57\u6f22\u5b57", 5) == "\u6f22\u5b57…"
    assert width("\u6f22a") == 3


# ---- the lead table and findings


def test_the_lead_table_marks_what_cannot_be_told_from_unchanged():
    shifts = placed(study())
    plain = [it.marks for cells in table(study().lead).rows for it in cells]
    marked = table(study().lead, shifts)
    assert not any("~" in it for it in plain)
    holding = {place for place, it in shifts.items() if it.holds_unchanged}
    assert holding
    for index, cells in enumerate(marked.rows):
        for column, cell in enumerate(cells):
            assert ("~" in cell.marks) == ((index, column) in holding)
    assert marked.holding


def test_what_the_lineage_explains_is_not_explained_again():
    grid = Grid(("a", "b"), ((row("m", 0.5, "s", note="one"), row("m", 0.5, "s", note="two")),),
                {"a": "said", "b": "new"})  # fmt: skip
    shown = table(grid, told={"said": "", "one": "a"})
    assert shown.explained == (("b", "new"),)
    assert shown.notes == (("b", "two"),)
    assert [it.marks for it in shown.rows[0]] == ["a", "b"]
    assert shown.elsewhere
    assert not table(grid).elsewhere


def test_findings_about_the_same_are_together():
    given = ["CKA: far.", "cosine: near.", "cosine: all are noted.", "cosine, a: why.", "Else."]
    assert gathered(given, ["CKA", "cosine"]) == [
        Said("CKA", ": far."),
        Said("cosine", ": near.", ("All are noted.", "a: why.")),
        Said("", "Else."),
    ]
    assert gathered(given, ["cosine"], of_one=True)[-1].more[-1] == "Else."
    assert [it.text for it in gathered(given, [])] == given


def test_alternatives_have_captions_of_their_own():
    rows = pd.DataFrame()
    choices = (Choice("a", "{}", rows, caption="own"), Choice("b", "{}", rows))
    section = replace(study().sections[0], figures=(Figure("f", "f", "common", choices),))
    found = unpacked(packed(section).figures[0])["choices"]
    assert [it["caption"] for it in found] == ["own", "common"]
    page = Page(render(replace(study(), sections=(section,))))
    assert "own" in page.text
