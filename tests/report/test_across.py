"""The end of a sweep: which jobs are put together, in which order, and what is left behind."""

import json
import sys
import types
from pathlib import Path

import pytest

from olmo_stages.errors import DataError
from olmo_stages.records import Job, Status, is_finished, read, write
from olmo_stages.report import across
from olmo_stages.report.across import assemble
from olmo_stages.report.pool import pool
from olmo_stages.types import Finished, Measurement, Result, Stage

BASE = Stage("base", "tiny", "miniature")
SFT = Stage("think_sft", "tiny", "miniature", parent=BASE)
DPO = Stage("think_dpo", "tiny", "miniature", parent=SFT)


def together(jobs):
    rows = [
        Measurement("together", job.result.measurements[0].value, job.stage, job.reference)
        for job in jobs
    ]
    return Result(tuple(rows), headline={"jobs": len(jobs)})


@pytest.fixture
def module(monkeypatch):
    """A user's own analysis, imported in this process."""
    mine = types.ModuleType("mine")
    mine.across = together
    monkeypatch.setitem(sys.modules, "mine", mine)
    return mine


def passes(stage, **changes):
    identity = {
        "weights": f"weights of {stage.label}",
        "random_init": None,
        "dtype": "float32",
        "tokenizer": "t",
        "format": "raw",
        "data": "d",
        "max_length": 512,
    }
    return identity | changes


def finish(
    sweep,
    stage=SFT,
    reference=BASE,
    *,
    data="truth",
    target="mine.Mine",
    digest="d",
    value=0.5,
    state="ok",
    options=None,
    seed=0,
    responses=None,
    **changes,
):
    """Writes a job's result where an experiment would and returns its status."""
    identity = {
        "options": options or {"k": 1},
        "version": 1,
        "seed": seed,
        "activations": passes(stage, **changes),
        "reference": None if reference is None else passes(reference, **changes),
    }
    if responses is not None:
        identity["responses"] = {"mode": responses, "generation": {"seed": 0}}
        if responses == "own":  # each stage reads other words
            for side, it in (("activations", stage), ("reference", reference)):
                identity[side] = identity[side] | {"data": f"words of {it.label}"}
    job = Job("mine", stage, reference, data, identity)
    folder = job.folder(sweep.parent.parent)
    record = {
        "job": job.describe(),
        "config": {"analysis": {"_target_": target}},
        "data_digest": digest,
        "model_digests": {stage.label: "w"},
    }
    write(folder, Result((Measurement("m", value, stage.label),)), record)
    return Status(job.digest, state, folder=str(folder), about=job.about())


@pytest.fixture
def sweep(tmp_path):
    return tmp_path / "outputs" / "sweeps" / "s"


def pairs(folder):
    return [(row.stage, row.reference) for row in read(folder).result.measurements]


@pytest.mark.usefixtures("module")
def test_jobs_are_put_together_in_the_order_of_the_lineage(sweep):
    step = [Stage("base", "tiny", "miniature", f"stage1-step{n}") for n in (1000, 200)]
    jobs = [(DPO, SFT), (step[0], BASE), (DPO, BASE), (step[1], BASE), (SFT, BASE)]
    (folder,) = assemble(sweep, [finish(sweep, *pair) for pair in jobs])
    assert folder == sweep / "across" / "mine.truth"
    assert pairs(folder) == [
        ("base@stage1-step200", "base"),
        ("base@stage1-step1000", "base"),
        ("think_sft", "base"),
        ("think_dpo", "base"),
        ("think_dpo", "think_sft"),
    ]


@pytest.mark.usefixtures("module")
def test_the_record_names_the_jobs_and_their_results(sweep):
    status = finish(sweep)
    (folder,) = assemble(sweep, [status])
    provenance = read(folder).provenance
    assert provenance["job"]["jobs"] == [
        {
            "digest": status.job,
            "stage": "think_sft",
            "reference": "base",
            "result": read(sweep.parent.parent / status.folder).digest,
        }
    ]
    assert provenance["data_digest"] == "d"
    assert provenance["model_digests"] == {"think_sft": "w"}
    assert json.loads((folder / "result.json").read_text())["headline"] == {"jobs": 1}


def test_an_analysis_sees_finished_jobs_with_their_results(sweep, module):
    seen = []
    module.across = seen.extend
    assert assemble(sweep, [finish(sweep), finish(sweep, BASE, None, state="cached")]) == []
    assert all(isinstance(job, Finished) for job in seen)
    assert [(job.stage, job.reference) for job in seen] == [("base", ""), ("think_sft", "base")]
    assert seen[1].result.measurements[0].value == 0.5
    assert not (sweep / "across").exists()


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    "difference",
    [
        {"digest": "other"},
        {"options": {"k": 2}},
        {"seed": 1},
        {"format": "chat_fixed"},
        {"dtype": "bfloat16"},
        {"quantisation": "bitsandbytes-nf4-double"},
        {"data": "manners"},
    ],
)
def test_jobs_that_differ_in_what_changes_a_number_are_apart(sweep, difference):
    jobs = [finish(sweep), finish(sweep, DPO, SFT, **difference)]
    found = assemble(sweep, jobs)
    assert sorted(map(pairs, found)) == [[("think_dpo", "think_sft")], [("think_sft", "base")]]
    names = sorted(folder.name for folder in found)
    if "data" in difference:
        assert names == ["mine.manners", "mine.truth"]
    else:
        assert all(name.startswith("mine.truth.") for name in names)


@pytest.mark.usefixtures("module")
def test_quantised_and_full_precision_jobs_of_a_sweep_are_apart_with_a_warning(sweep, caplog):
    full = finish(sweep, quantisation="none")
    found = assemble(sweep, [full, finish(sweep, DPO, SFT, quantisation="none")])
    assert not caplog.messages
    assert read(found[0]).result.warnings == ()
    found = assemble(sweep, [full, finish(sweep, DPO, SFT, quantisation="bitsandbytes-x")])
    assert [
        text for text in caplog.messages if "mixes quantisations (bitsandbytes-x, none)" in text
    ]
    notes = {pairs(folder)[0][0]: read(folder).result.warnings for folder in found}
    assert notes["think_sft"] == ()
    assert notes["think_dpo"][0].startswith("weights are quantised (bitsandbytes-x)")


@pytest.mark.usefixtures("module")
def test_sizes_are_apart_and_a_fine_tune_is_with_its_reference(sweep):
    large = [Stage(stage.name, "7b", "hub") for stage in (BASE, SFT)]
    own = Stage("mine", "custom", "directory", parent=large[1])
    weights = {"weights": "of 7b"}
    found = assemble(
        sweep,
        [
            finish(sweep),
            finish(sweep, large[1], large[0], **weights),
            finish(sweep, own, large[1], **weights),
        ],
    )
    both = [("mine", "think_sft"), ("think_sft", "base")]
    assert sorted(sorted(pairs(it)) for it in found) == [both, [("think_sft", "base")]]


@pytest.mark.usefixtures("module")
def test_chat_templates_and_context_lengths_of_stages_may_differ(sweep):
    # Of the released stages they do; prompts are made by this project's own formats.
    other = {"tokenizer": "another", "max_length": 64}
    base = finish(sweep, BASE, None)
    (folder,) = assemble(sweep, [base, finish(sweep, DPO, SFT, **other)])
    assert len(pairs(folder)) == 2


@pytest.mark.usefixtures("module")
def test_one_label_for_two_models_is_refused_in_one_line(sweep, caplog):
    jobs = [finish(sweep), finish(sweep, SFT, None, weights="others")]
    assert assemble(sweep, jobs) == []
    (line,) = [it.getMessage() for it in caplog.records]
    assert "think_sft stands for two models" in line
    assert "\n" not in line


@pytest.mark.usefixtures("module")
def test_a_job_that_two_overrides_name_counts_once(sweep):
    status = finish(sweep)
    (folder,) = assemble(sweep, [status, status])
    assert len(pairs(folder)) == 1


@pytest.mark.usefixtures("module")
def test_failed_jobs_are_left_out_and_damaged_ones_with_a_line(sweep, caplog):
    good, bad = finish(sweep), finish(sweep, DPO, SFT)
    failed = Status("x", "failed", folder=good.folder, error="no")
    path = sweep.parent.parent / bad.folder / "measurements.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size
    (folder,) = assemble(sweep, [failed, bad, good])
    assert pairs(folder) == [("think_sft", "base")]
    (line,) = [it.getMessage() for it in caplog.records]
    assert "is damaged" in line
    assert "measurements.parquet" in line
    path.write_bytes(content)
    assert len(pairs(assemble(sweep, [bad, good])[0])) == 2


@pytest.mark.usefixtures("module")
def test_a_record_of_another_kind_is_left_out_with_a_line(sweep, caplog):
    folder = sweep / "odd"
    write(folder, Result(()), {"job": {"analysis": "mine"}})
    assert assemble(sweep, [Status("0", "ok", folder=str(folder))]) == []
    assert "another version" in caplog.text


def test_an_error_in_one_group_costs_no_other(sweep, module, caplog):
    def refuse(jobs):
        if jobs[0].stage == "think_dpo":
            raise DataError("no two alike")
        return together(jobs)

    module.across = refuse
    jobs = [finish(sweep), finish(sweep, DPO, SFT, data="manners")]
    assert [it.name for it in assemble(sweep, jobs)] == ["mine.truth"]
    (line,) = [it.getMessage() for it in caplog.records]
    assert "mine.manners" in line
    assert "no two alike" in line


def test_what_is_no_result_is_one_line(sweep, module, caplog):
    module.across = list
    assert assemble(sweep, [finish(sweep)]) == []
    assert "mine.across returned list; return a Result or None" in caplog.text


def test_a_mistake_in_an_analysis_is_not_hidden(sweep, module):
    module.across = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        assemble(sweep, [finish(sweep)])


def test_a_second_run_replaces_what_the_first_assembled(sweep, module):
    first = finish(sweep)
    (folder,) = assemble(sweep, [first])
    again = finish(sweep, value=0.75)
    assert assemble(sweep, [again]) == [folder]
    assert read(folder).result.measurements[0].value == 0.75
    module.across = lambda _: None
    assert assemble(sweep, [again]) == []
    assert not folder.exists()


@pytest.mark.usefixtures("module")
def test_stale_results_go_and_a_users_files_stay(sweep):
    one, other = finish(sweep), finish(sweep, DPO, SFT, seed=1)
    (alone,) = assemble(sweep, [one])
    (alone / "notes.txt").write_text("mine")
    (sweep / "across" / "own").mkdir()
    apart = assemble(sweep, [one, other])
    assert alone not in apart
    assert not is_finished(alone)
    assert [it.name for it in alone.iterdir()] == ["notes.txt"]
    assert (sweep / "across" / "own").is_dir()
    assert all(map(is_finished, apart))


@pytest.mark.usefixtures("module")
def test_nothing_is_removed_while_a_job_cannot_be_read(sweep):
    one, other = finish(sweep), finish(sweep, DPO, SFT, data="manners")
    folders = assemble(sweep, [one, other])
    (sweep.parent.parent / other.folder / "result.json").unlink()
    assert assemble(sweep, [one, other]) == [folders[1]]
    assert all(map(is_finished, folders))


def test_a_users_analysis_is_never_imported_from_a_record(sweep, tmp_path, monkeypatch):
    (tmp_path / "unknown.py").write_text("raise SystemExit('was imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert assemble(sweep, [finish(sweep, target="unknown.Mine")]) == []


def test_what_a_process_that_knows_the_analysis_assembled_is_shown_by_one_that_does_not(
    sweep, module, monkeypatch
):
    status = finish(sweep)
    (folder,) = assemble(sweep, [status])
    monkeypatch.delitem(sys.modules, module.__name__)
    assert assemble(sweep, [status]) == [folder]
    changed = finish(sweep, value=0.75)
    assert assemble(sweep, [changed]) == []  # it is about the earlier result
    assert is_finished(folder)  # but not this process's to remove


def test_the_packages_own_analyses_are_imported_by_name(sweep):
    name = "olmo_stages.analyses.probe"
    statuses = [finish(sweep, target=f"{name}.Probe")]
    assert assemble(sweep, statuses) == []  # it kept nothing to put together
    assert name in sys.modules
    assert assemble(sweep, [finish(sweep, target="olmo_stages.analyses.nothing.X")]) == []


@pytest.mark.usefixtures("module")
def test_results_that_were_moved_with_their_sweep_are_found(sweep, tmp_path, monkeypatch):
    status = finish(sweep)
    relative = status.folder.replace(str(tmp_path) + "/", "")
    monkeypatch.chdir("/")
    (tmp_path / "outputs").rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / "sweeps" / "s"
    (folder,) = assemble(moved, [Status("0", "ok", folder=relative)])
    assert folder.parent.parent == moved


@pytest.mark.usefixtures("module")
def test_a_folder_that_cannot_be_written_is_one_line(sweep, caplog):
    statuses = [finish(sweep)]
    sweep.mkdir(parents=True)
    (sweep / "across").write_text("a file where the folder should be")
    assert assemble(sweep, statuses) == []
    assert len(caplog.records) == 1


def test_a_sweep_without_results_has_nothing_to_assemble(sweep):
    assert assemble(sweep, [Status("0", "failed", error="no")]) == []
    assert not (sweep / "across").exists()


@pytest.mark.usefixtures("module")
def test_jobs_of_own_responses_are_put_together_and_replayed_ones_apart(sweep):
    jobs = [
        finish(sweep, *pair, responses=mode)
        for mode in ("own", "replay of think_sft", "replay of base", None)
        for pair in ((SFT, BASE), (DPO, BASE))
    ]
    folders = assemble(sweep, jobs)
    assert len(folders) == 4
    assert all(
        pairs(folder) == [("think_sft", "base"), ("think_dpo", "base")] for folder in folders
    )


@pytest.mark.usefixtures("module")
def test_jobs_of_own_responses_that_kept_other_examples_are_apart(sweep):
    kept = [finish(sweep, *pair, responses="own") for pair in ((SFT, BASE), (DPO, BASE))]
    fewer = finish(sweep, DPO, SFT, responses="own", digest="of fewer examples")
    assert [len(pairs(it)) for it in assemble(sweep, [*kept, fewer])] in ([2, 1], [1, 2])


@pytest.fixture
def counted(module, tmp_path):
    """The user's own analysis in a file, and how often it put jobs together."""
    path = tmp_path / "mine.py"
    path.write_text("# first")
    module.__file__ = str(path)
    calls = []

    def across(jobs):
        calls.append(len(jobs))
        return together(jobs)

    module.across = across
    return calls


def test_what_is_current_is_not_made_again(sweep, counted):
    status = finish(sweep)
    first = assemble(sweep, [status])
    assert assemble(sweep, [status]) == first
    assert counted == [1]


def test_another_number_of_a_job_makes_it_anew(sweep, counted):
    assemble(sweep, [finish(sweep)])
    (folder,) = assemble(sweep, [finish(sweep, value=0.75)])
    assert counted == [1, 1]
    assert read(folder).result.measurements[0].value == 0.75


def test_another_job_makes_it_anew(sweep, counted):
    one = finish(sweep)
    assemble(sweep, [one])
    assemble(sweep, [one, finish(sweep, DPO, SFT)])
    assert counted == [1, 2]


def test_other_code_makes_it_anew(sweep, counted, module):
    status = finish(sweep)
    assemble(sweep, [status])
    Path(module.__file__).write_text("# second")
    assemble(sweep, [status])
    assert counted == [1, 1]


def test_code_that_cannot_be_known_makes_it_anew(sweep, counted, module):
    del module.__file__
    status = finish(sweep)
    assemble(sweep, [status])
    assemble(sweep, [status])
    assert counted == [1, 1]


def test_a_damaged_one_is_made_anew(sweep, counted):
    status = finish(sweep)
    (folder,) = assemble(sweep, [status])
    (folder / "measurements.parquet").write_bytes(b"")
    assemble(sweep, [status])
    assert counted == [1, 1]
    assert is_finished(folder)


def test_what_another_folder_holds_of_the_same_jobs_is_used(sweep, counted, tmp_path):
    status = finish(sweep)
    (folder,) = assemble(sweep, [status])
    (found,) = across.together(pool({sweep: [status]}).groups, tmp_path / "r", [sweep / "across"])
    assert found.folder == folder
    assert counted == [1]
    (found,) = across.together(pool({sweep: [status]}).groups, tmp_path / "r")
    assert found.folder == tmp_path / "r" / "mine.truth"
    assert counted == [1, 1]


def test_tensors_are_read_only_to_make_it_anew(sweep, counted, monkeypatch):
    status = finish(sweep)
    assemble(sweep, [status])
    monkeypatch.setattr(across, "read", None)
    assemble(sweep, [status])
    assert counted == [1]


def test_an_older_one_serves_where_a_new_one_cannot_be_made(sweep, counted, module, caplog):
    status = finish(sweep)
    first = assemble(sweep, [status])
    Path(module.__file__).write_text("# second")

    def refuse(_):
        raise DataError("no two alike")

    module.across = refuse
    assert assemble(sweep, [status]) == first
    assert "no two alike" in caplog.text
    assert "was made by another version of the code" in caplog.text
    assert counted == [1]
