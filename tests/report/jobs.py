"""Jobs and sweeps as files, written where a run would write them."""

import json
import sys
import types
from pathlib import Path

from olmo_stages import command
from olmo_stages.records import Job, Status, Times, now, write, write_status
from olmo_stages.records import provenance as record_of
from olmo_stages.types import Change, Measurement, Result, Stage

BASE = Stage("base", "tiny", "miniature")
SFT = Stage("think_sft", "tiny", "miniature", parent=BASE)
DPO = Stage("think_dpo", "tiny", "miniature", parent=SFT)

MOVED = Change(
    name="moved",
    says="how far it moved",
    metric="moved",
    variant="raw",
    metric_across="moved_stages",
    variant_across="raw",
    resampled="95 % interval over groups",
    reverse="negated",
)


def analysis(monkeypatch, name="mine", **attributes):
    """A user's own analysis, imported in this process."""
    module = types.ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def moved(value, stage, reference="", half=0.1, **more):
    """A number with an interval of `half` on both sides."""
    told = {"variant": "raw", "n": 40, "n_groups": 8, "ci_low": value - half}
    return Measurement(
        "moved", value, stage, reference, **{**told, "ci_high": value + half, **more}
    )


def layers(stage, reference="", trait="", metric="score"):
    """A curve over two layers."""
    return [
        Measurement(
            metric,
            0.5 + layer / 10,
            stage,
            reference,
            layer=layer,
            layer_type="full_attention",
            ci_low=0.4,
            ci_high=0.8,
            n=40,
            n_groups=8,
            trait=trait,
        )
        for layer in range(2)
    ]


def finish(
    sweep: Path,
    stage=SFT,
    reference=BASE,
    rows=(),
    *,
    data="truth",
    options=None,
    seed=0,
    name="mine",
    weights=None,
    config=None,
    result=None,
    overrides=None,
    passes=None,
    **more,
):
    """Write a job's result and its status; returns the folder of the result."""

    def read(it):
        identity = {"weights": f"weights of {it.label}", "dtype": "float32", "format": "raw"}
        own = {} if weights is None else {"weights": weights.get(it.label, it.label)}
        return {**identity, **own, "quantisation": "none", "data": data, **(passes or {})}

    identity = {
        "options": {"k": 1} if options is None else options,
        "version": 1,
        "seed": seed,
        "activations": read(stage),
        "reference": None if reference is None else read(reference),
    }
    job = Job(name, stage, reference, data, identity)
    folder = job.folder(sweep.parent.parent)
    sides = [it for it in (stage, reference) if it is not None]
    record = record_of(
        job=job.describe(),
        config={"analysis": {"_target_": f"{name}.Mine"}, **(config or {})},
        times=Times(now(), now()),
        seed=seed,
        data_digest="d" * 64,
        model_digests={it.label: read(it)["weights"] for it in sides},
    )
    record |= more
    # What is checked is what a report says, not what this checkout is.
    record["git"] = more.get("git", {"commit": "c" * 40, "dirty": False})
    found = Result(tuple(rows), headline={"score": 0.5}) if result is None else result
    write(folder, found, record)
    given = [f"model={stage.label}", f"analysis={name}"] if overrides is None else overrides
    about = job.about()
    write_status(sweep, Status(job.digest, "ok", str(folder), overrides=given, about=about))
    return folder


def fail(sweep: Path, stage="think_dpo", state="failed", name="mine", error="no memory"):
    """Write the status of a job without a result."""
    overrides = [f"model={stage}", f"analysis={name}", "size=tiny"]
    write_status(sweep, Status(f"{name}-{stage}", state, error=error, overrides=overrides))


def launched(sweep: Path, *words):
    """Note the command of a sweep."""
    command.record(sweep, "run.py", ["-m", *words])


def damage(path: Path):
    """Change a file's last byte, so that its size stays."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def track(folder: Path, **note):
    """Note what a tracker sent."""
    (folder / "tracking.json").write_text(json.dumps({"url": None, "place": "w/run", **note}))
