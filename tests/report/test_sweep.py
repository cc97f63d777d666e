import math

import pytest

from olmo_stages.records import Job, Status, write, write_status
from olmo_stages.report.sweep import gather
from olmo_stages.types import Measurement, Result, Stage

BASE = Stage("base", "tiny", "miniature", revision="stage1-step10")
SFT = Stage("think_sft", "tiny", "miniature", parent=BASE)
ROWS = (
    Measurement("auroc", 0.75, SFT.label, layer=3, variant="probe"),
    Measurement("auroc", 0.5, BASE.label, layer=3, variant="reference"),
    Measurement("auroc", math.nan, SFT.label, variant="baseline:length"),
)


def finish(sweep, name, rows=ROWS, reference=BASE):
    job = Job("probe", SFT, reference, "truth", {"seed": name})
    folder = job.folder(sweep / "results")
    write(folder, Result(rows), {"job": job.describe()})
    write_status(sweep, Status(name, "ok", folder=str(folder), about=job.about()))
    return folder


def test_rows_of_all_jobs_are_gathered(tmp_path):
    finish(tmp_path, "0")
    finish(tmp_path, "1")
    frame = gather(tmp_path)
    assert frame["job"].tolist() == ["0"] * 3 + ["1"] * 3
    assert frame["value"].tolist()[:2] == [0.75, 0.5]
    assert set(frame["analysis"]) == {"probe"}
    assert set(frame["data"]) == {"truth"}


def test_layers_stay_whole(tmp_path):
    finish(tmp_path, "0")
    assert str(gather(tmp_path)["layer"].dtype) == "Int64"


def test_size_and_revision_are_those_of_the_rows_stage(tmp_path):
    finish(tmp_path, "0")
    frame = gather(tmp_path)
    assert frame["revision"].tolist() == ["main", "stage1-step10", "main"]
    assert frame["size"].tolist() == ["tiny"] * 3


def test_a_job_without_reference_is_about_its_stage(tmp_path):
    finish(tmp_path, "0", reference=None, rows=ROWS[:1])
    assert gather(tmp_path)["revision"].tolist() == ["main"]


def test_failed_and_damaged_jobs_have_no_rows(tmp_path):
    finish(tmp_path, "0")
    (finish(tmp_path, "1") / "measurements.parquet").unlink()
    write_status(tmp_path, Status("2", "failed", error="no"))
    assert set(gather(tmp_path)["job"]) == {"0"}


@pytest.mark.parametrize("ended", [True, False])
def test_a_sweep_without_results_is_an_empty_table_of_the_same_columns(tmp_path, ended):
    if ended:
        write_status(tmp_path, Status("0", "failed"))
    empty = gather(tmp_path)
    finish(tmp_path, "1")
    assert len(empty) == 0
    assert list(empty.columns) == list(gather(tmp_path).columns)
