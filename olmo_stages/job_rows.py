"""The rows of a job, and of jobs that are seen together, from their files.

A job without a number gives one row that says what is known of it, and why there is none.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from olmo_stages.blocks import ACROSS, EMPTY, MEASUREMENT, Block, Model
from olmo_stages.errors import StoreError
from olmo_stages.expected import told
from olmo_stages.records import (
    MEASUREMENTS,
    PROVENANCE,
    canonical_json,
    is_finished,
    locate,
    mark_digest,
    read_file,
    read_mark,
)
from olmo_stages.statuses import Status

_STALE = "it is about results that were replaced since; olmo-stages report SWEEP makes it anew"
_DONE = frozenset({"ok", "cached"})
_ODD = (KeyError, TypeError, AttributeError, ValueError)  # a record that no job of ours wrote


def of_job(sweep_dir: Path, sweep: str, status: Status) -> Block:
    """The rows of a sweep's job, or the one that says why there are none.

    Args:
        sweep_dir: folder of the sweep.
        sweep: its name.
        status: of the job.
    """
    if status.state in _DONE and status.folder is not None:
        block = _of_result(locate(sweep_dir, Path(status.folder)), _told(status))
    else:
        lost = {"state": "damaged", "error": "it does not say where its result is"}
        why = lost if status.state in _DONE else {"state": status.state, "error": status.error}
        block = Block({**_told(status), "kind": EMPTY, **why})
    return replace(block, about={**block.about, "job": status.job}, sweeps=(sweep,))


def _told(status: Status) -> dict[str, str]:
    """The columns that a job without numbers can fill."""
    about = status.about or told(status.overrides)
    names = ("analysis", "data", "stage", "reference", "size")
    found = {name: about[name] for name in names if about.get(name)}
    for side, prefix in (("stage", ""), ("reference", "reference_")):
        if label := found.get(side):
            found |= {f"job_{side}": label, f"{prefix}revision": label.partition("@")[2] or "main"}
    if "reference" in found and found.get("size", "custom") != "custom":
        found["reference_size"] = found["size"]
    return found


def of_folder(folder: Path, known: Sequence[Block]) -> Block:
    """The rows of a result, be it of a job or of jobs that are seen together.

    Args:
        folder: of the result.
        known: blocks of jobs that it may be about.
    """
    try:
        together = "across" in read_mark(folder)["job"]
    except (StoreError, *_ODD):
        together = False
    return of_across(folder, known, complete=False) if together else _of_result(folder, {})


def _of_result(folder: Path, told_of_it: Mapping[str, str]) -> Block:
    """The rows of a job's result; what the sweep tells of it is for a damaged one."""
    try:
        mark, record, rows = _read(folder)
        job = record["job"]
        about = {**_about_job(job), "data_digest": str(record["data_digest"])}
        models = _models(job, record["model_digests"])
    except (StoreError, *_ODD) as error:
        return Block({**told_of_it, **_about_damaged(folder), **_damaged(folder, error)})
    about |= {"folder": str(folder), "result_digest": mark_digest(mark), "state": "ok"}
    if rows.num_rows == 0:
        sides = _sides(job)
        return Block({**about, **sides, "kind": EMPTY, "error": "it measured nothing"})
    return Block({**about, "kind": MEASUREMENT}, rows, models=models)


def of_across(
    folder: Path, known: Sequence[Block], sweep: str = "", *, complete: bool = True
) -> Block:
    """The rows of jobs that are seen together.

    Args:
        folder: of the assembled result.
        known: blocks of jobs, which tell of models and whether their numbers are still these.
        sweep: name of the sweep that it belongs to; else those of its jobs.
        complete: whether a job that is not among `known` is gone.
    """
    named = {"job": folder.name}
    sweeps = (sweep,) if sweep else ()
    try:
        mark, record, rows = _read(folder)
        jobs = {it["digest"]: it["result"] for it in record["job"]["jobs"]}
        about = {**named, **_about_across(record)}
        models = _models_across(record)
    except (StoreError, *_ODD) as error:
        return Block({**named, **_damaged(folder, error)}, sweeps=sweeps)
    now = {it.about["job_digest"]: it for it in known if it.about.get("job_digest") in jobs}
    for block in now.values():
        models |= block.models
        sweeps = sweeps if sweep else tuple(dict.fromkeys([*sweeps, *block.sweeps]))
    about |= {"folder": str(folder), "result_digest": mark_digest(mark), "state": "ok"}
    gone = complete and len(now) < len(jobs)
    if gone or any(block.result != jobs[digest] for digest, block in now.items()):
        about |= {"state": "stale", "error": _STALE}
    return Block({**about, "kind": ACROSS}, rows, sweeps, models)


def _about_across(record: Mapping[str, Any]) -> dict[str, str]:
    key = record["job"]["across"]
    return {
        "analysis": key["analysis"],
        "data": key["data"],
        "options": canonical_json(key["options"]),
        "data_digest": record["data_digest"],
        "job_digest": hashlib.sha256(canonical_json(record["job"]).encode()).hexdigest(),
    }


def _models_across(record: Mapping[str, Any]) -> dict[str, Model]:
    """What an assembled result itself knows of models; its jobs know more."""
    rest = {"size": str(record["job"]["across"]["size"]), "revision": "", "source": ""}
    return {
        label: {**rest, "model_digest": digest} for label, digest in record["model_digests"].items()
    }


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], pa.Table]:
    """Mark, provenance and measurements of a result.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    mark = read_mark(folder)
    if not is_finished(folder):
        raise StoreError(f"{folder} is damaged; run its job again")
    rows = pq.read_table(io.BytesIO(read_file(folder, mark, MEASUREMENTS)))
    return mark, json.loads(read_file(folder, mark, PROVENANCE)), rows


def _about_job(job: Mapping[str, Any]) -> dict[str, str]:
    reference = job["reference"]
    return {
        "analysis": job["analysis"],
        "data": job["data"],
        "options": canonical_json(job["identity"].get("options", {})),
        "job_stage": job["stage"]["label"],
        "job_reference": "" if reference is None else reference["label"],
        "job_digest": job["digest"],
    }


def _sides(job: Mapping[str, Any]) -> dict[str, str]:
    """The columns about stage and reference of a job that has no rows of its own."""
    found: dict[str, str] = {}
    for side, prefix in (("stage", ""), ("reference", "reference_")):
        if (it := job[side]) is not None:
            known = {f"{prefix}{name}": str(it[name]) for name in ("size", "revision", "source")}
            found |= {side: it["label"], **known}
    return found


def _about_damaged(folder: Path) -> dict[str, str]:
    """What the mark of a damaged result still tells of its job."""
    try:
        job = read_mark(folder)["job"]
        return {**_about_job(job), **_sides(job)}
    except (StoreError, *_ODD):
        return {}


def _damaged(folder: Path, error: Exception) -> dict[str, str]:
    said = str(error) if isinstance(error, StoreError) else f"{folder} is of another version"
    return {"kind": EMPTY, "state": "damaged", "error": said, "folder": str(folder)}


def _models(job: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Model]:
    """What is known of the stage, of the reference, and of the same without training."""
    sides = [it for it in (job["stage"], job["reference"]) if it is not None]
    if len({it["label"] for it in sides}) < len(sides):
        return {}  # one label for two models: nobody can tell which of them a row is about
    found: dict[str, Model] = {}
    for it in sides:
        known = {name: str(it[name]) for name in ("size", "revision", "source")}
        found[it["label"]] = {**known, "model_digest": str(digests.get(it["label"], ""))}
    return {f"{label} (random)": {**it, "model_digest": ""} for label, it in found.items()} | found
