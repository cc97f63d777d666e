import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from olmo_stages.document import Grid
from olmo_stages.records import Job, mark_digest, read_mark, write
from olmo_stages.tracking import library, panels, reports
from olmo_stages.tracking.run_layout import history, summary
from olmo_stages.tracking.runs import Wandb
from olmo_stages.tracking.runsets import filters
from olmo_stages.tracking.sent import sent_of
from olmo_stages.types import Measurement, Result, Stage
from tests import documents
from tests.tracking.standin import Server
from tests.tracking.test_markdown import rendered, words

KEY = "0123456789abcdef0123456789abcdef01234567"
BASE = Stage("base", "tiny", "miniature")
STAGES = [Stage(name, "tiny", "miniature", parent=BASE) for name in ("think_sft", "think_dpo")]
GROUP = "a=b<c 'quoted\" sweep"
"""A group whose name the library's own expressions of filters would change."""


@pytest.fixture
def server(monkeypatch):
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", server.address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield server
    server.shutdown()
    server.server_close()


def result(stage):
    rows = [
        Measurement("auroc", 0.75, stage, "base", layer, variant=variant, ci_low=0.5, ci_high=0.9)
        for variant in ("probe", "control")
        for layer in (0, 1)
    ]
    rows += [
        Measurement("selectivity", 0.1, stage, "base", 0, variant="probe"),
        Measurement("auroc", 0.5, stage, "base", variant="baseline:length"),
        Measurement("cka_map", 0.5, stage, "base", 0, reference_layer=1, variant="probe"),
    ]
    return Result(tuple(rows), figures={"auroc": '{"data": []}'}, headline={"auroc": 0.75})


def finished(tmp_path, stage):
    job = Job("probe", stage, BASE, "truth", {"seed": 0})
    folder = job.folder(tmp_path / "outputs")
    write(folder, result(stage.label), {"job": job.describe()})
    return job, result(stage.label), folder


def source(job, folder):
    base = documents.study().sources[0]
    digest = mark_digest(read_mark(folder))
    return dataclasses.replace(
        base, stage=job.stage.label, folder=str(folder), digest=job.digest, result=digest
    )


def note(tmp_path, job, folder, group):
    """What the tracker leaves behind, which takes seconds where it is real."""
    name = f"offline-run-20261122_060000-{job.run_id}"
    place = tmp_path / "outputs" / "wandb" / name
    place.mkdir(parents=True)
    known = {"project": "p", "entity": None, "run_id": job.run_id, "url": None}
    digest = mark_digest(read_mark(folder))
    content = {**known, "result": digest, "place": str(place), "group": group}
    (folder / "tracking.json").write_text(json.dumps(content))


def study(tmp_path, *, groups=(GROUP, GROUP), recorded=False):
    """The hostile study, with the results of two jobs on disk; None for a group records no run."""
    sources = []
    for stage, group in zip(STAGES, groups, strict=True):
        job, what, folder = finished(tmp_path, stage)
        if recorded:
            tracker = Wandb("p", directory=tmp_path / "outputs", mode="offline")
            tracker.record(job, what, folder, group=group, config={})
        elif group is not None:
            note(tmp_path, job, folder, group)
        sources.append(source(job, folder))
    return dataclasses.replace(documents.study(), sources=tuple(sources))


def spec_of(report):
    return json.loads(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


def everything(value):
    """All mappings inside a specification."""
    if isinstance(value, dict):
        yield value
    for it in value.values() if isinstance(value, dict) else value:
        if isinstance(it, dict | list):
            yield from everything(it)


def shown(spec):
    """The names of curves and numbers in the panels of a specification."""
    configs = [it for it in everything(spec) if "metrics" in it]
    names = [name for it in configs for name in it["metrics"]]
    return names + [it["xAxis"] for it in configs if "xAxis" in it]


# ---- what a report says


def test_a_report_has_its_parts_in_the_order_of_reading(tmp_path):
    spec = spec_of(reports.build(study(tmp_path), project="p"))
    heads = [it["children"][0]["text"] for it in spec["blocks"] if it["type"] == "heading"]
    top = [
        "Findings",
        "Warnings",
        "What each stage changed",
        f"probe on truth {documents.HOSTILE}",
        "Notes",
        "Further curves",
        "How the figures are read",
        "cka on truth",
        "How the figures are read",
        "Jobs without a result",
        "Runs and files",
        "Provenance",
        "Models, data and code of each job",
    ]
    assert heads == top
    kinds = {it["type"] for it in everything(spec) if isinstance(it.get("type"), str)}
    wanted = {"table-of-contents", "markdown-block", "panel-grid", "code-block", "callout-block"}
    assert wanted <= kinds
    code = [it for it in everything(spec) if it.get("type") == "code-block"]
    assert documents.study().commands[0] in json.dumps(code)
    assert {it["language"] for it in code} == {"yaml", "json"}


def test_a_report_survives_the_library_s_own_models(tmp_path):
    wr = library.reports()
    model = reports.build(study(tmp_path), project="p")._to_model()
    again = wr.Report._from_model(model.model_copy(deep=True))._to_model()
    ours, theirs = (
        [it.model_dump_json(exclude={"metadata"}, by_alias=True) for it in one.spec.blocks]
        for one in (model, again)
    )
    assert ours == theirs
    assert not [it for it in again.spec.blocks if "Unknown" in type(it).__name__]


def test_text_of_the_study_stays_text(tmp_path):
    given = study(tmp_path, groups=(None, None))
    spec = spec_of(reports.build(given, "me", "p"))
    texts = [it["content"] for it in everything(spec) if it.get("type") == "markdown-block"]
    tokens = [token for text in texts for token in rendered(text)]
    assert {"table_open", "bullet_list_open"} <= {it.type for it in tokens}
    assert not {it.type for it in tokens} & {"html_inline", "html_block", "image", "link_open"}
    whole = "".join(words(tokens))
    told = (*given.findings, *given.warnings, given.sections[0].lead.rows[0][-1])
    assert [it for it in told if it not in whole] == []


def cells_of(spec, head):
    """Cells of the first table below a head."""
    blocks = spec["blocks"]
    heads = [it["children"][0].get("text") if "children" in it else None for it in blocks]
    below = blocks[heads.index(head) + 1 :]
    table = next(it["content"] for it in below if "| ---" in it.get("content", ""))
    return [it.content for it in rendered(table) if it.type == "inline"]


def test_the_lineage_marks_what_is_not_distinguishable_from_no_change(tmp_path):
    given = study(tmp_path)
    clear = dataclasses.replace(documents.row("auroc_difference", 0.5, "s"), variant="best_layer")
    near = dataclasses.replace(clear, value=0.05, ci_low=-0.05, ci_high=0.15)
    other = dataclasses.replace(near, metric="no change of any edge")
    lead = Grid(("stage", "against base"), tuple((it.metric, it) for it in (clear, near, other)))
    cells = cells_of(
        spec_of(reports.build(dataclasses.replace(given, lead=lead))), "What each stage changed"
    )
    assert ["≈" in it for it in cells[3:8:2]] == [False, True, False]
    assert "not distinguishable from no change" in cells[-1]


def test_what_an_edge_does_not_carry_has_its_reason_once(tmp_path):
    given = study(tmp_path)
    edge = given.edges[-1]
    given = dataclasses.replace(
        given, edges=(*given.edges, dataclasses.replace(edge, stage="think_rlvr"))
    )
    text = json.dumps(spec_of(reports.build(given, project="p")))
    assert text.count("probe of think_dpo, think_rlvr&#58; its job failed") == 1


def test_folders_of_the_machine_are_not_sent(tmp_path):
    spec = json.dumps(spec_of(reports.build(study(tmp_path), "me", "p")))
    assert str(tmp_path) not in spec
    assert "77332f3c" in spec  # digest of the data


# ---- which runs and numbers its panels show


def logged_by(run):
    """All names in the history and summary of an offline run, as W&B's own program reads them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [json.loads(line) for line in out.splitlines()]
    return {
        name.removesuffix("._type")
        for line in lines
        for kind in ("history", "summary")
        if line["type"] == kind
        for name in line[kind].get("item", line[kind].get("update", {}))
    }


def test_every_name_in_a_panel_was_logged(tmp_path):
    given = study(tmp_path, recorded=True)
    (run, *_) = (tmp_path / "outputs" / "wandb").glob("offline-run-*")
    held = logged_by(run)
    what = result("think_sft")
    assert held >= {it for point in history(what.measurements, "probe") for it in point}
    assert held >= set(summary(what, "probe"))
    view = reports.workspace(given, "me", "p")._to_model().spec
    view = json.loads(view.model_dump_json(by_alias=True, exclude_none=True))
    for spec in (spec_of(reports.build(given, project="p")), view):
        names = set(shown(spec))
        assert names <= held
        assert names >= {"layer", "probe/auroc", "probe/auroc_low", "probe/auroc_high"}
        assert {"probe/control/auroc", "probe/baseline_length/auroc"} <= names
        media = {key for it in everything(spec) for key in it.get("mediaKeys", ())}
        assert media == {"figures/auroc"} <= held
        assert '"val": "measurements"' in json.dumps(spec)
        assert "measurements" in held


def test_the_main_curves_lead_and_have_their_ends_dotted(tmp_path):
    held = panels.logged(sent_of(study(tmp_path)))
    assert list(held.main) == ["probe/auroc", "probe/selectivity"]
    assert held.main["probe/selectivity"] == ()
    assert list(held.further) == ["probe/control/auroc"]
    (plot, _) = panels.line_plots(held.main, {"r": panels.Line("think_sft", "#123456", "dashed")})
    assert plot.line_marks == {
        "r:probe/auroc": "dashed",
        "r:probe/auroc_low": "dotted",
        "r:probe/auroc_high": "dotted",
    }
    assert plot.line_titles["r:probe/auroc"] == "think_sft"


def test_no_run_is_left_out_of_a_plot():
    looks = {str(index): panels.Line("s", "#123456", "solid") for index in range(12)}
    (plot,) = panels.line_plots({"probe/auroc": ()}, looks)
    assert plot.max_runs_to_show == 12  # W&B shows ten unless told


def sets_of(spec):
    sets = [it for grid in everything(spec) for it in grid.get("runSets", ())]
    return {it["name"]: it["filters"]["filters"] for it in sets}


def test_runs_are_shown_by_group_and_no_others_of_it(tmp_path):
    given = study(tmp_path, groups=(GROUP, "other"))
    one, other = (it.run_id for it in sent_of(given))
    found = sets_of(spec_of(reports.build(given, project="p")))
    assert list(found) == [GROUP, "other"]
    asked = {
        name: [(it["key"]["name"], it["op"], it["value"]) for it in filters]
        for name, filters in found.items()
    }
    assert asked == {
        GROUP: [("group", "=", GROUP), ("name", "IN", [one])],
        "other": [("group", "=", "other"), ("name", "IN", [other])],
    }
    assert found[GROUP][1]["connector"] == "AND"


def test_a_view_is_filtered_by_group_and_has_the_layer_as_its_axis(tmp_path):
    given = study(tmp_path, groups=(GROUP, "other"))
    view = reports.workspace(given, "me", "p")._to_model().spec.section
    items = view.run_sets[0].filters["filters"]
    assert (items[0]["key"]["name"], items[0]["value"]) == ("group", [GROUP, "other"])
    assert items[1]["value"] == [it.run_id for it in sent_of(given)]
    assert view.run_sets[0].grouping == []  # panels would show means over stages
    assert view.settings.x_axis == "layer"
    names = [it.name for it in view.panel_bank_config.sections]
    assert names == [
        f"probe on truth {documents.HOSTILE}",
        f"probe on truth {documents.HOSTILE}: further curves",
    ]


def test_runs_without_a_known_group_are_found_by_their_ids(tmp_path):
    assert filters(sent_of(study(tmp_path, groups=("", "a")))).startswith('Metric("ID") in [')


def test_a_run_of_another_result_is_not_shown(tmp_path):
    given = study(tmp_path)
    folder = Path(given.sources[0].folder)
    noted = (folder / "tracking.json").read_bytes()
    job, what, _ = finished(tmp_path, STAGES[0])
    write(
        folder,
        dataclasses.replace(what, measurements=what.measurements[:1]),
        {"job": job.describe()},
    )
    (folder / "tracking.json").write_bytes(noted)
    assert [it.source.stage for it in sent_of(given)] == ["think_dpo"]


def test_a_source_that_names_its_section_is_in_no_other(tmp_path):
    given = study(tmp_path)
    first, second = given.sources
    keys = (given.sections[1].key, given.sections[0].key)
    moved = [
        dataclasses.replace(it, section=key) for it, key in zip((first, second), keys, strict=True)
    ]
    given = dataclasses.replace(given, sources=tuple(moved))
    runs = [panels.runs_of(it, given, sent_of(given)) for it in given.sections]
    assert [[it.source.stage for it in some] for some in runs] == [["think_dpo"], ["think_sft"]]


@pytest.mark.parametrize("recorded", [True, False])
def test_a_section_without_runs_has_no_panels_of_others(tmp_path, recorded):
    given = study(tmp_path, groups=(GROUP, GROUP) if recorded else (None, None))
    spec = spec_of(reports.build(given, project="p"))
    grids = [it for it in everything(spec) if it.get("type") == "panel-grid"]
    assert len(grids) == (2 if recorded else 0)
    said = next(it for it in spec["blocks"] if it["type"] == "callout-block")
    wanted = "2 of 2 runs were not uploaded" if recorded else "2 of 2 jobs were not recorded"
    assert wanted in json.dumps(said)


@pytest.mark.parametrize("entity", ["me", ""])
def test_runs_and_files_are_linked_where_their_owner_is_known(tmp_path, entity):
    given = study(tmp_path)
    text = json.dumps(spec_of(reports.build(given, entity, "p")))
    run_id = sent_of(given)[0].run_id
    assert run_id in text
    assert (f"/me/p/runs/{run_id})" in text) is bool(entity)
    assert (f"/me/p/artifacts/result/probe-{run_id})" in text) is bool(entity)


# ---- uploading


def test_runs_that_are_all_of_a_folder_are_uploaded_by_a_pattern(tmp_path):
    given = study(tmp_path)
    folder = tmp_path / "outputs" / "wandb"
    assert reports.sync_lines(given) == (f"wandb sync {folder}/offline-run-*",)
    (folder / "latest-run").symlink_to(sent_of(given)[0].place)
    one, other = (it.place for it in sent_of(given))
    (folder / "offline-run-20260101_000000-somebody").mkdir()
    assert reports.sync_lines(given) == (f"wandb sync {one} {other}",)
    (one / "run-x.wandb.synced").touch()
    assert reports.sync_lines(given) == (f"wandb sync {other}",)
    (other / "run-x.wandb.synced").touch()
    assert reports.sync_lines(given) == ()


def test_an_upload_names_folders_as_a_shell_needs_them_and_from_where_it_is(tmp_path):
    home = tmp_path / "a b; rm -rf x"
    home.mkdir()
    given = study(home)
    (line,) = reports.sync_lines(given, "team", "p")
    runs = str(home / "outputs" / "wandb" / "offline-run-*")
    assert shlex.split(line) == ["wandb", "sync", "-e", "team", runs]
    with contextlib.chdir(home):
        assert reports.sync_lines(given) == ("wandb sync outputs/wandb/offline-run-*",)


@pytest.mark.parametrize("put", [shutil.move, shutil.copytree])
def test_moved_and_copied_results_have_their_runs_beside_them(tmp_path, put):
    given = study(tmp_path)
    put(tmp_path / "outputs", tmp_path / "moved")
    moved = [
        dataclasses.replace(it, folder=it.folder.replace("/outputs/", "/moved/"))
        for it in given.sources
    ]
    given = dataclasses.replace(given, sources=tuple(moved))
    assert reports.sync_lines(given) == (f"wandb sync {tmp_path}/moved/wandb/offline-run-*",)


def test_the_line_uploads_the_runs(tmp_path, server):
    given = study(tmp_path, recorded=True)
    (line,) = reports.sync_lines(given)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        line, shell=True, check=True, capture_output=True, env={**os.environ, "PATH": path}
    )
    assert set(server.runs) == {it.run_id for it in sent_of(given)}
    assert all(it["groupName"] == GROUP for it in server.runs.values())
    layers = [it["layer"] for it in next(iter(server.history.values())).values() if "layer" in it]
    assert layers == [0, 1]
    assert reports.sync_lines(given) == ()
    assert all(it.is_uploaded for it in sent_of(given))


# ---- saving


def test_a_report_and_a_view_are_saved_with_what_the_server_asks_for(tmp_path, server, capfd):
    given = study(tmp_path)
    saved = reports.save(given, tmp_path / "report")
    report, view = server.views.values()
    assert (report["entityName"], report["projectName"], report["type"]) == ("me", "p", "runs")
    assert (view["entityName"], view["projectName"], view["type"]) == ("me", "p", "project-view")
    assert report["displayName"] == "study <script>window.hacked=1<-script>"
    spec = json.loads(report["spec"])
    kept = json.loads((tmp_path / "report" / reports.SPEC).read_bytes())
    assert [it["type"] for it in spec["blocks"]] == [
        it["type"] for it in kept["report"]["spec"]["blocks"]
    ]
    places = [it["project"] for it in everything(spec) if "runFeed" in it]
    named = {"entityName": "me", "name": "p", "id": "internal"}
    assert places == [named, named]
    assert "section" in json.loads(view["spec"])
    assert saved.report.startswith(f"{server.address}/me/p/reports/study-%3Cscript")
    assert saved.workspace.startswith(f"{server.address}/me/p?nw=")
    assert saved.lines[:2] == (
        f"W&B report: {saved.report}",
        f"W&B workspace: {saved.workspace}",
    )
    assert reports.sync_lines(given)[0] in saved.lines[2]
    assert "p" in server.projects
    assert saved.is_whole
    # The folder is there to be published.
    assert {it.name for it in (tmp_path / "report").iterdir()} == {reports.SPEC, reports.NOTE}
    assert capfd.readouterr() == ("", "")


def test_a_second_time_updates_the_same_report_and_keeps_what_people_said(tmp_path, server):
    given = study(tmp_path)
    first = reports.save(given, tmp_path / "report")
    held = next(iter(server.views.values()))
    spec = json.loads(held["spec"])
    held["spec"] = json.dumps(spec | {"discussionThreads": ["a comment"]})
    again = reports.save(dataclasses.replace(given, title="new name"), tmp_path / "report")
    assert len(server.views) == 2
    report, view = server.views.values()
    assert report["displayName"] == view["displayName"] == "new name"
    assert json.loads(report["spec"])["discussionThreads"] == ["a comment"]
    assert again.report.rpartition("--")[2] == first.report.rpartition("--")[2]
    assert again.workspace == first.workspace
    elsewhere = reports.save(given, tmp_path / "report", project="other")
    assert elsewhere.report.rpartition("--")[2] != first.report.rpartition("--")[2]


def test_what_was_deleted_on_the_server_is_made_again(tmp_path, server):
    given = study(tmp_path)
    reports.save(given, tmp_path / "report")
    server.views.clear()
    saved = reports.save(given, tmp_path / "report")
    assert len(server.views) == 2
    assert saved.report
    assert saved.workspace


@pytest.mark.parametrize(
    ("operation", "what"),
    [("Viewer", "report"), ("upsertView", "report"), ("UpsertView2", "workspace view")],
)
def test_a_refusal_is_one_line_and_costs_nothing(tmp_path, server, operation, what):
    server.refused = operation
    given = study(tmp_path)
    saved = reports.save(given, tmp_path / "report")
    (line,) = (it for it in saved.lines if "not saved" in it)
    assert line.startswith(f"W&B: the {what} was not saved (")
    assert "\n" not in line
    assert bool(saved.report) is (what != "report")
    assert saved.workspace == ""
    assert not saved.is_whole
    assert (tmp_path / "report" / reports.SPEC).exists()
    server.refused = ""
    assert reports.save(given, tmp_path / "report").workspace
    assert len(server.views) == 2


def test_a_server_that_dawdles_is_waited_for_as_long_as_told(tmp_path, server):
    server.slow = "GetProjects"
    given = study(tmp_path)
    reports.build(given)  # the library is imported
    started = time.monotonic()
    saved = reports.save(given, tmp_path / "report", timeout_s=1)
    assert saved.lines[0].startswith("W&B: the report was not saved (no answer within 1 s)")
    # 1 s, twice reading the results and ending the service, with a wide margin.
    assert time.monotonic() - started < 8
    assert (tmp_path / "report" / reports.SPEC).exists()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("WANDB_API_KEY", None, "run `wandb login`, then this again"),
        ("WANDB_MODE", "offline", "WANDB_MODE is offline"),
        ("WANDB_BASE_URL", "http://127.0.0.1:9", "http://127.0.0.1:9 does not answer"),
    ],
)
def test_what_cannot_be_sent_is_written(tmp_path, server, monkeypatch, variable, value, said):
    given = study(tmp_path)
    import wandb

    wandb.teardown()
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    saved = reports.save(given, tmp_path / "report")
    assert said in saved.lines[0]
    assert saved.report == saved.workspace == ""
    assert server.asked == []
    kept = json.loads((tmp_path / "report" / reports.SPEC).read_bytes())
    assert kept["project"] == "p"
    assert kept["report"]["spec"]["blocks"]
    assert kept["workspace"]["spec"]["section"]
    assert not (tmp_path / "report" / reports.NOTE).exists()


@pytest.mark.usefixtures("server")
def test_a_damaged_note_is_no_hindrance(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / reports.NOTE).write_text('{"entity": "me"')
    assert reports.save(study(tmp_path), tmp_path / "report").report


@pytest.mark.usefixtures("server")
def test_a_mistake_of_ours_is_not_hidden(tmp_path, monkeypatch):
    given = study(tmp_path)
    monkeypatch.setattr(reports, "_save_view", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reports.save(given, tmp_path / "report")


def test_nothing_is_imported_before_it_is_needed():
    code = (
        "import sys, olmo_stages.tracking.reports; "
        "print([it for it in ('wandb', 'wandb_workspaces') if it in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
