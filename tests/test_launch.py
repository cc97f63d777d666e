"""The command line in this process: what a user types, what they see, how it exits."""

import json
import logging
import shutil
import sys

import pandas as pd
import pytest
import wandb
from typer.testing import CliRunner

from olmo_stages import launch, results
from olmo_stages.cli import app
from olmo_stages.errors import StoreError
from olmo_stages.launching import job
from olmo_stages.records import read
from olmo_stages.report import page
from olmo_stages.statuses import Status, read_statuses

QUICK = [
    "analysis.n_permutations=19",
    "analysis.n_resamples=100",
    "analysis.n_controls=1",
    "analysis.strengths=[0.1,1.0]",
    "analysis.n_inner=2",
    "data=manners",
    "data.vocabulary=miniature",
    "tracking=none",
]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs a command line; returns exit code, standard output and standard error.

    The jobs of a sweep run in this process, where they can be watched and tampered with; how they
    run otherwise is tested in launching/.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("OLMO_STAGES_CACHE", str(tmp_path / "cache"))

    def go(*arguments):
        here = ["hydra/launcher=basic"] if {"-m", "--multirun"} & set(arguments) else []
        try:
            launch.main([*arguments, *here])
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    yield go
    # What Hydra leaves behind after --cfg, bound to this test's standard output.
    root = logging.getLogger()
    for handler in [it for it in root.handlers if type(it) is logging.StreamHandler]:
        root.removeHandler(handler)


def custom(path):
    return ["model=custom", f"model.path={path}", *QUICK]


def folders(root):
    return sorted(path.parent for path in root.rglob("result.json"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=think_stf"], ["model=think_stf", "think_sft", "did you mean think_sft?"]),
        (["-m", "model=base,think_stf"], ["think_stf", "did you mean think_sft?"]),
        (["analysis=prob"], ["analysis=prob", "choose from", "probe"]),
        (["size=9b"], ["size=9b", "tiny, 7b, 32b"]),
        (["model=rl_zero_math", "size=32b"], ["rl_zero_math", "size=32b", "tiny, 7b"]),
        (["analysis.n_fold=3"], ["analysis.n_fold", "no such option", "did you mean n_folds?"]),
        (["analysis.n_folds=three"], ["analysis.n_folds='three' is not a whole number"]),
        (["analysis.layers=3"], ["analysis.layers=3 is not a list of whole numbers", "or null"]),
        (["analysis.random_init=perhaps"], ["analysis.random_init='perhaps' is not true or false"]),
        (["analysis.kind=svm"], ["analysis.kind 'svm'", "logistic, lda, mean_difference"]),
        (["data=mannors"], ["data=mannors", "manners"]),
        (
            ["reference=think_stf"],
            ["reference=think_stf", "choose from parent, base, none, ", "did you mean think_sft?"],
        ),
        (["+extra=1"], ["extra"]),
        (["think_sft"], ["think_sft: write key=value, e.g. model=think_sft"]),
        (["analysis.layers=[1,2"], ["analysis.layers=[1,2: cannot be read; close brackets"]),
        (["seed=-1"], ["seed=-1 is negative; give 0 or more"]),
        (["model=custom"], ["model.path="]),
        (["model=base", "reference=base@main"], ["reference=base@main", "itself"]),
        (
            ["-m", "+experiment=training_dynamics", "model=think_dpo"],
            ["there is no model.grid.tiny; choose a stage and size"],
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_alternatives_and_exit_code_2(run, arguments, words):
    code, out, err = run(*arguments)
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in out + err
    for word in words:
        assert word in err


@pytest.mark.usefixtures("run")
def test_traceback_on_request(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="think_stf"):
        launch.main(["model=think_stf"])


def test_one_job_writes_its_result_and_shows_it(run, checkpoints, tmp_path):
    code, out, err = run(*custom(checkpoints[0]))
    assert code == 0, err
    (folder,) = folders(tmp_path / "outputs")
    assert folder.relative_to(tmp_path / "outputs").parts[:2] == ("probe", "first.custom")
    frame = pd.read_parquet(folder / "measurements.parquet")
    rows = [json.loads(line) for line in (folder / "measurements.jsonl").read_text().splitlines()]
    assert len(frame) == len(rows) > 30
    assert set(frame[frame.variant == "probe"].metric) == {
        "auroc",
        "balanced_accuracy",
        "log_loss",
        "selectivity",
    }
    recorded = read(folder)
    assert recorded.result.tensors["direction"].shape == (4, 64)
    assert recorded.provenance["config"]["analysis"]["n_permutations"] == 19
    assert recorded.provenance["model_digests"]["first"]
    assert str(folder.relative_to(tmp_path)) in out
    assert "layer" in out
    assert "no reference" in out


def test_running_again_redoes_nothing_and_force_redoes(run, checkpoints, tmp_path):
    run(*custom(checkpoints[0]))
    (folder,) = folders(tmp_path / "outputs")
    before = (folder / "provenance.json").read_bytes()
    numbers = (folder / "measurements.parquet").read_bytes()
    _, out, _ = run(*custom(checkpoints[0]))
    assert "already done" in out
    assert (folder / "provenance.json").read_bytes() == before
    _, out, err = run(*custom(checkpoints[0]), "force=true")
    assert "already done" not in out
    assert "activations of" not in err  # the store still has them
    assert (folder / "provenance.json").read_bytes() != before
    assert (folder / "measurements.parquet").read_bytes() == numbers


def test_a_sweep_shows_one_table_and_survives_a_failing_job(run, checkpoints, tmp_path):
    missing = tmp_path / "nowhere"
    code, out, err = run(
        *("-m", f"model.path={checkpoints[0]},{missing},{checkpoints[1]}", "model=custom"),
        *("report=false", *QUICK),
    )
    assert code == 1
    assert len(folders(tmp_path / "outputs" / "probe")) == 2
    assert "nowhere" in err
    table = out[out.rindex("best layer") :]
    assert "first" in table
    assert "second" in table
    assert "failed" in table
    redo = next(line for line in table.splitlines() if line.startswith("redo"))
    assert "python run.py -m" in redo
    assert f" model.path={missing} " in redo  # and of nothing else
    rows = [line.split() for line in table.splitlines() if str(missing)[-9:] in line]
    assert "analysis.n_permutations" not in table.replace(redo, "")
    assert rows
    statuses = [
        json.loads(path.read_text()) for path in (tmp_path / "outputs/sweeps").rglob("jobs/*.json")
    ]
    assert sorted(status["state"] for status in statuses) == ["failed", "ok", "ok"]


def test_two_stages_are_compared_with_each_other(run, checkpoints, tmp_path):
    conf = tmp_path / "conf"
    (conf / "model").mkdir(parents=True)
    (conf / "model" / "mother.yaml").write_text(
        "_target_: olmo_stages.stages.resolve\nname: mother\nfamily: mine\nparent: null\n"
        f"revision: main\nsize: ${{size}}\nsources: {{tiny: '{checkpoints[0]}'}}\n"
    )
    arguments = [*custom(checkpoints[1]), "model.parent=mother"]
    code, out, err = run("--config-dir", str(conf), *arguments)
    assert code == 0, err
    (folder,) = folders(tmp_path / "outputs")
    assert folder.parent.name == "second.custom.vs.mother"
    metrics = {row.metric for row in read(folder).result.measurements}
    assert {"auroc_difference", "transfer_auroc", "transfer_balanced_accuracy"} <= metrics
    assert "against mother" in out


def test_a_real_checkpoint_is_not_set_beside_the_miniature_family(run, checkpoints, tmp_path):
    real = tmp_path / "real"
    shutil.copytree(checkpoints[0], real)
    config = json.loads((real / "config.json").read_text())
    (real / "config.json").write_text(json.dumps(config | {"vocab_size": 100278}))
    for wish in ("model.parent=think_sft", "reference=base@main"):
        code, _, err = run(*custom(real), wish)
        assert code == 2
        assert "100278 tokens" in err
        assert "size=7b" in err


def test_a_new_analysis_is_one_python_file_and_one_yaml(run, checkpoints, tmp_path, monkeypatch):
    (tmp_path / "launch_norms.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "import numpy as np\n"
        "from olmo_stages.types import Measurement, Result\n"
        "@dataclass(frozen=True)\n"
        "class Norms:\n"
        "    order: int\n"
        "    name: ClassVar[str] = 'norms'\n"
        "    def __call__(self, stage, reference, activations, seed):\n"
        "        a = activations(stage)\n"
        "        norms = np.linalg.norm(a.values, ord=self.order, axis=2).mean(1)\n"
        "        rows = tuple(Measurement('norm', float(v), stage.label, layer=l,\n"
        "            layer_type=t) for v, l, t in zip(norms, a.layers, a.layer_types))\n"
        "        return Result(rows, headline={'norm': float(norms[-1])})\n"
    )
    (tmp_path / "conf" / "analysis").mkdir(parents=True)
    (tmp_path / "conf" / "analysis" / "norms.yaml").write_text(
        "_target_: launch_norms.Norms\norder: 2\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, out, err = run(
        "--config-dir",
        str(tmp_path / "conf"),
        "-m",
        "analysis=norms",
        "model=custom",
        f"model.path={checkpoints[0]},{checkpoints[1]}",
        "data.vocabulary=miniature",
        "tracking=none",
    )
    assert code == 0, err
    found = folders(tmp_path / "outputs" / "norms")
    assert len(found) == 2
    assert all(row.value > 0 for row in read(found[0]).result.measurements)
    assert "norm" in out


NORMS = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from olmo_stages.errors import DataError
from olmo_stages.types import Measurement, Result

@dataclass(frozen=True)
class Norms:
    name: ClassVar[str] = "norms"

    def __call__(self, stage, reference, activations, seed):
        norm = float(np.linalg.norm(activations(stage).values, axis=2).mean())
        return Result((Measurement("norm", norm, stage.label),), headline={"norm": norm})

def across(jobs):
    first = jobs[0].stage
    rows = [
        Measurement("ratio", job.result.headline["norm"] / jobs[0].result.headline["norm"],
                    job.stage, first, note=job.reference)
        for job in jobs
    ]
    return Result(tuple(rows), warnings=(f"{len(jobs)} jobs together",))
"""


@pytest.fixture(scope="module")
def activations(tmp_path_factory):
    """Where the first sweep of `norms` leaves what it read, which is the same for all of them."""
    return tmp_path_factory.mktemp("read") / "cache"


@pytest.fixture
def norms(run, checkpoints, activations, tmp_path, monkeypatch):
    """Sweeps an analysis of a user's own, which sees its jobs together, over two checkpoints."""
    if activations.exists():
        shutil.copytree(activations, tmp_path / "cache")
    name = "norms_across"  # its own, because a module is imported once a process
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "conf" / "analysis").mkdir(parents=True)
    (tmp_path / "conf" / "analysis" / "norms.yaml").write_text(f"_target_: {name}.Norms\n")

    def go(*options, paths=checkpoints, source=NORMS):
        (tmp_path / f"{name}.py").write_text(source)
        tracking = [] if any(it.startswith("tracking=") for it in options) else ["tracking=none"]
        arguments = ["model=custom", "data.vocabulary=miniature", "sweep=s", *tracking, *options]
        chosen = ",".join(map(str, paths))
        conf = ["--config-dir", str(tmp_path / "conf"), "-m", "analysis=norms"]
        found = run(*conf, *arguments, f"model.path={chosen}")
        if found[0] == 0 and not activations.exists():
            shutil.copytree(tmp_path / "cache", activations)
        return found

    return go


def test_a_sweep_ends_with_its_jobs_seen_together(norms, tmp_path):
    code, out, err = norms()
    assert (code, "not assembled" in err) == (0, False)
    folder = tmp_path / "outputs/sweeps/s/across/norms.truth_miniature"
    rows = read(folder).result.measurements
    assert [(row.stage, row.reference) for row in rows] == [("first", "first"), ("second", "first")]
    assert rows[0].value == 1.0
    assert rows[1].value != 1.0
    after = out[out.index("sweep: outputs/sweeps/s") :]
    assert "note: 2 jobs together" in after
    assert "all stages together: outputs/sweeps/s/across/norms.truth_miniature" in after
    lines = [line.split() for line in after.splitlines()]
    assert ["first", "1.000"] in lines


def test_a_sweep_whose_jobs_are_done_is_assembled_again(norms, tmp_path):
    norms()
    shutil.rmtree(tmp_path / "outputs/sweeps/s/across")
    code, out, err = norms()
    assert code == 0
    assert "activations of" not in err
    assert "2 jobs together" in out


def test_the_jobs_that_are_done_are_seen_together_when_another_failed(norms, checkpoints, tmp_path):
    code, out, _ = norms(paths=(checkpoints[0], tmp_path / "nowhere"))
    assert code == 1
    assert "1 jobs together" in out


def test_what_cannot_be_assembled_costs_neither_the_table_nor_the_exit_code(norms, caplog):
    refusing = NORMS.replace("    first = jobs[0].stage\n", "    raise DataError('none alike')\n")
    assert refusing != NORMS
    code, out, _ = norms(source=refusing)
    assert code == 0
    assert "sweep: outputs/sweeps/s" in out
    assert "all stages together" not in out
    (line,) = [it.getMessage() for it in caplog.records if "not assembled" in it.getMessage()]
    assert "none alike" in line


def test_the_report_of_a_sweep_shows_its_jobs_together(norms, tmp_path, monkeypatch):
    _, out, _ = norms("report=false")
    table = out[out.index("sweep: outputs/sweeps/s") :].partition("\n")[2]
    arguments = ["report", "outputs/sweeps/s", "--all"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert table in done.output
    monkeypatch.delitem(sys.modules, "norms_across")  # as in a process of its own
    assert table in CliRunner().invoke(app, arguments).output
    (tmp_path / "outputs/sweeps/s/across/norms.truth_miniature/result.json").unlink()
    assert "jobs together" not in CliRunner().invoke(app, arguments).output


REPORT = "outputs/sweeps/s/report"
SAID = [f"table: {REPORT}/measurements.parquet", f"page: {REPORT}/index.html"]


def test_a_sweep_ends_with_its_table_and_its_page(norms, tmp_path):
    code, out, err = norms()
    assert (code, "no report" in err) == (0, False)
    assert out.splitlines()[-2:] == SAID
    assert "2 jobs: norms of 2 stages" in out
    page = (tmp_path / REPORT / "index.html").read_text()
    assert "first" in page
    frame = results.load(tmp_path / REPORT / "measurements.parquet")
    assert set(frame["metric"]) == {"norm", "ratio"}


def test_a_sweep_ends_without_a_report_where_none_is_wanted(norms, tmp_path):
    code, out, _ = norms("report=false")
    assert code == 0
    assert "page:" not in out
    assert not (tmp_path / REPORT).exists()


def test_the_report_of_a_sweep_tells_of_the_job_that_failed(norms, checkpoints, tmp_path):
    code, out, _ = norms(paths=(checkpoints[0], tmp_path / "nowhere"))
    assert code == 1
    assert out.splitlines()[-2:] == SAID
    assert "nowhere" in (tmp_path / REPORT / "index.html").read_text()


def test_a_sweep_of_which_nothing_is_done_has_no_report(norms, tmp_path):
    code, out, _ = norms(paths=(tmp_path / "nowhere", tmp_path / "neither"))
    assert code == 1
    assert "page:" not in out
    assert not (tmp_path / REPORT).exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            KeyError("caption"),
            "no report: KeyError: 'caption'; olmo-stages report outputs/sweeps/s",
        ),
        (StoreError("cannot write x"), "no report: cannot write x; olmo-stages report"),
        (KeyboardInterrupt(), "no report: interrupted; olmo-stages report outputs/sweeps/s"),
    ],
)
def test_a_fault_in_the_report_is_one_line_and_costs_nothing(norms, monkeypatch, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(page, "write", fail)
    code, out, err = norms()
    assert code == 0
    assert "sweep: outputs/sweeps/s" in out
    assert "first" in out
    (line,) = [it for it in err.splitlines() if "no report" in it]
    assert line.startswith(said)


def test_a_report_makes_neither_another_sweep_nor_other_jobs(norms, tmp_path):
    norms("report=false")
    before = folders(tmp_path / "outputs" / "norms")
    code, out, _ = norms("report=true")
    assert code == 0
    assert out.count("already done") == 2
    assert folders(tmp_path / "outputs" / "norms") == before
    assert len([*(tmp_path / "outputs/sweeps/s/jobs").iterdir()]) == 2


def test_a_single_run_says_how_to_get_a_page_and_makes_none(run, checkpoints, tmp_path):
    code, out, _ = run(*custom(checkpoints[0]), "sweep=s+p")
    assert code == 0
    assert out.splitlines()[-1] == "as a page: olmo-stages report outputs/sweeps/s+p"
    assert not (tmp_path / "outputs/sweeps/s+p/report").exists()


def test_the_runs_that_wait_for_upload_are_named_once(norms, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, out, _ = norms("tracking=wandb")
    assert code == 0
    lines = [it for it in out.splitlines() if it.startswith("W&B, to upload: ")]
    assert lines == ["W&B, to upload: wandb sync outputs/wandb/offline-run-*"]
    assert out.index(lines[0]) > out.index("sweep: outputs/sweeps/s")


CKA = [
    "analysis=cka",
    "analysis.n_permutations=9",
    "analysis.n_permutations_also=4",
    "analysis.n_resamples=100",
    "analysis.n_halves=1",
    "analysis.max_rows=200",
    "analysis.also=[mutual_knn]",
    "data=manners",
    "data.vocabulary=miniature",
    "tracking=none",
]


def test_similarity_of_two_stages_and_of_the_sweep(run, checkpoints, tmp_path):
    arguments = ["-m", "model=custom", f"model.path={checkpoints[0]},{checkpoints[1]}", "sweep=s"]
    arguments += [*CKA, "analysis.position=tokens", "analysis.tokens_per_example=2"]
    code, out, err = run(*arguments)
    assert code == 0, err
    found = [read(folder) for folder in folders(tmp_path / "outputs/cka")]
    assert len(found) == 2
    for recorded in found:
        rows = recorded.result.measurements
        cells = [row for row in rows if (row.metric, row.variant) == ("debiased_cka_map", "raw")]
        assert len(cells) == 16
        assert {row.layer_type for row in cells} == {"sliding_attention", "full_attention"}
        assert any(row.variant == "floor:raw" for row in rows)
        assert recorded.provenance["job"]["identity"]["options"]["n_resamples"] == 100
    together = read(tmp_path / "outputs/sweeps/s/across/cka.manners_miniature").result
    (mean,) = [
        row
        for row in together.measurements
        if (row.metric, row.variant, row.layer) == ("debiased_cka_stages", "raw", None)
    ]
    assert (mean.stage, mean.reference) == ("second", "first")
    assert mean.ci_low < mean.value < mean.ci_high < 1
    assert "no reference" in out
    # What changes a number makes it another job, from the same activations.
    _, _, err = run(*arguments, "analysis.n_resamples=200")
    assert "activations of" not in err
    assert len(folders(tmp_path / "outputs/cka")) == 4


def test_another_analysis_of_the_same_activations_does_no_forward_pass(run, checkpoints):
    _, _, first = run(*custom(checkpoints[0]))
    assert "activations of" in first
    _, _, second = run(*custom(checkpoints[0]), "analysis.kind=lda", "seed=0")
    assert "activations of" not in second
    _, _, third = run(*custom(checkpoints[0]), "analysis.position=mean")
    assert "activations of" not in third
    _, _, fourth = run(*custom(checkpoints[0]), "analysis.site=mlp_out")
    assert "activations of" in fourth


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=base", "--cfg", "job"],
        ["model=base", "--cfg", "job", "seed=1"],
        ["--config-dir=conf", "model=base", "--help"],
        ["--hydra-help"],
    ],
)
def test_a_flag_may_stand_anywhere(run, tmp_path, arguments):
    (tmp_path / "conf").mkdir()
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize("wrong", ["sweep=", "sweep=null", "sweep=../x", "sweep=a/b", "outputs="])
def test_a_folder_without_a_usable_name_is_refused_before_anything_is_written(run, tmp_path, wrong):
    code, _, err = run("-m", "model=base", wrong)
    assert code == 2
    assert wrong in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [[], ["-m"]])
@pytest.mark.parametrize("option", ["outputs", "cache"])
def test_a_folder_that_cannot_be_used_is_one_line(run, checkpoints, tmp_path, mode, option):
    (tmp_path / "file").write_text("")
    code, out, err = run(*mode, *custom(checkpoints[0]), f"{option}={tmp_path}/file")
    assert code == 1
    assert "Traceback" not in out + err
    (line,) = err.strip().splitlines()
    assert str(tmp_path / "file") in line


def test_a_study_without_m_says_that_its_sweep_is_not_run(run, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra: {sweeper: {params: {seed: '0,1'}}}\n"
    )
    arguments = ["--config-dir", str(tmp_path / "conf"), "+experiment=mine"]
    # No job is needed to see it: the stage does not exist.
    _, _, err = run(*arguments, *custom(tmp_path / "nowhere"))
    assert "note: +experiment=mine sweeps over seed only with -m" in err
    _, _, err = run("-m", *arguments, *custom(tmp_path / "nowhere"))
    assert "note:" not in err


def test_ctrl_c_says_how_to_go_on(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "perform", interrupt)
    code, _, err = run("model=base")
    assert code == 130
    assert err.strip() == "interrupted; the same command goes on from here"


def test_a_tracker_that_cannot_be_reached_is_one_warning_and_the_result_stands(
    run, checkpoints, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()  # it would keep the settings of an earlier test
    arguments = [a for a in custom(checkpoints[0]) if a != "tracking=none"]
    code, _, _ = run(*arguments)
    assert code == 0
    assert caplog.text.count("does not answer; recording offline") == 1
    assert len(folders(tmp_path / "outputs")) == 1
    written = [path.read_bytes() for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert not any(b"0123456789abcdef" in content for content in written)


def test_a_result_that_was_damaged_is_made_again_with_a_warning(run, checkpoints, tmp_path, caplog):
    run(*custom(checkpoints[0]))
    (folder,) = folders(tmp_path / "outputs")
    path = folder / "measurements.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))  # of the same size
    code, out, _ = run(*custom(checkpoints[0]))
    assert code == 0
    assert "already done" not in out
    assert caplog.text.count("is damaged") == 1
    assert path.read_bytes() == good


def fails(*_):
    raise RuntimeError("stopped")


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=base,think_dpo", "seed=0,1", "force=true"],
        ["+experiment=training_dynamics"],
        ["+experiment=similarity", "model=think_sft,rl_zero_math"],
        ["model=base,think_sft", "analysis.layers=[0,1],null", "+extra='a b',c"],
        ["analysis=glob(c*)", "seed=range(0,2)"],
    ],
)
def test_a_sweep_notes_its_jobs_under_the_names_they_give_themselves(
    run, tmp_path, monkeypatch, arguments
):
    monkeypatch.setattr(job, "perform", fails)
    assert run("-m", *arguments, "sweep=s")[0] == 1
    sweep = tmp_path / "outputs/sweeps/s"
    (path,) = (sweep / "expected").iterdir()
    jobs = json.loads(path.read_text())["jobs"]
    statuses = [json.loads(it.read_text()) for it in (sweep / "jobs").iterdir()]
    assert len(jobs) > 1
    assert {it["job"]: it["overrides"] for it in jobs} == {
        it["job"]: it["overrides"] for it in statuses
    }


def test_a_killed_sweep_shows_what_never_started(run, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "perform", interrupt)
    code, out, _ = run("-m", "model=base,think_sft,think_dpo", "analysis=cka", "sweep=s")
    assert code == 130
    assert out.count("not started") == 2
    statuses = read_statuses(tmp_path / "outputs/sweeps/s")
    assert [it.state for it in statuses] == ["stopped", "missing", "missing"]
    assert [it.about["stage"] for it in statuses] == ["base", "think_sft", "think_dpo"]
    assert [it.about["reference"] for it in statuses] == ["", "base", "think_sft"]
    assert {it.about["analysis"] for it in statuses} == {"cka"}
    assert out.count("redo only what is missing: ") == 1
    # A launch of some of them forgets none of the others.
    monkeypatch.setattr(job, "perform", lambda *it: Status(it[2], "ok", overrides=it[3]))
    code, out, _ = run("-m", "model=base,think_sft", "analysis=cka", "sweep=s", "report=false")
    assert code == 0  # it did all that it was asked for
    assert out.count("not started") == 1
    (redo,) = (it for it in out.splitlines() if it.startswith("redo only what is missing: "))
    assert " model=think_dpo " in redo  # of the launch that asked for it
    states = [it.state for it in read_statuses(tmp_path / "outputs/sweeps/s")]
    assert states == ["ok", "ok", "missing"]


def test_what_was_mistyped_is_not_waited_for(run, tmp_path):
    code, _, _ = run("-m", "model=base,think_stf", "sweep=s")
    assert code == 2
    assert read_statuses(tmp_path / "outputs/sweeps/s") == []
