"""A small hand-made study, for tests of what shows one; names and texts are hostile on purpose."""

import datetime
import json

import pandas as pd

from olmo_stages.document import (
    Choice,
    Edge,
    Figure,
    Grid,
    Node,
    Problem,
    Section,
    Shift,
    Source,
    Study,
)
from olmo_stages.figures import layer_curves
from olmo_stages.types import Change, Measurement

HOSTILE = "<script>window.hacked=1</script>"
"""Stands where text of data sets, names and errors comes in; must stay text everywhere."""

PROBE = Change(
    name="probe",
    says="AUROC of the best layer's probe, less the parent's",
    metric="auroc_difference",
    variant="best_layer",
    unchanged=0.0,
    resampled="95 % bootstrap interval over groups of examples",
)
CKA = Change(
    name="CKA",
    says="debiased linear CKA with the parent, mean over layers",
    metric="debiased_cka_mean",
    variant="raw",
    unchanged=1.0,
    resampled="95 % bootstrap interval over groups of examples",
)


def row(metric: str, value: float, stage: str, reference: str = "", **more) -> Measurement:
    """A measurement with an interval of a tenth on both sides, 80 examples in 16 groups."""
    given = {"ci_low": value - 0.1, "ci_high": value + 0.1, "n": 80, "n_groups": 16}
    return Measurement(metric, value, stage, reference, **{**given, **more})


def curve(stage: str, offset: float = 0.0) -> list[Measurement]:
    """AUROC of four layers, the last of full attention."""
    kinds = ["sliding_attention"] * 3 + ["full_attention"]
    return [
        row(
            "auroc",
            0.5 + layer / 10 + offset,
            stage,
            layer=layer,
            layer_type=kind,
            variant="probe",
            null=0.5,
            p=0.01,
            p_max=0.02,
        )
        for layer, kind in enumerate(kinds)
    ]


def figure(key: str, stages: list[str]) -> Figure:
    """A curve a stage, one choice each."""
    choices = []
    for index, stage in enumerate(stages):
        rows = curve(stage, index / 100)
        drawn = layer_curves(rows, "auroc", title=f"AUROC, {stage}", y_label="AUROC", chance=0.5)
        choices.append(Choice(stage, drawn, pd.DataFrame([vars(it) for it in rows])))
    caption = f"Band: 95 % interval over groups; dotted: median of shuffled labels. {HOSTILE}"
    return Figure(key, f"AUROC by layer {HOSTILE}", caption, tuple(choices))


def heat(key: str) -> Figure:
    """A map of pairs of layers."""
    drawn = {
        "data": [{"type": "heatmap", "z": [[1.0, 0.5], [0.5, 1.0]], "colorscale": "Cividis"}],
        "layout": {"title": {"text": "map"}, "template": "none"},
    }
    rows = pd.DataFrame([vars(row("debiased_cka_map", 0.9, "think_sft", "base", layer=0))])
    return Figure(
        key, "Layers against layers", "No interval.", (Choice("", json.dumps(drawn), rows),)
    )


def study() -> Study:
    """Base, two stages below it, one failed below these, two sections."""
    stages = ["base", "think_sft", f"mine {HOSTILE}"]
    nodes = (
        Node("base", "", measured=False, size="tiny"),
        Node("think_sft", "base", measured=True, size="tiny"),
        Node(stages[2], "base", measured=True, size="custom"),
        Node("think_dpo", "think_sft", measured=False, failed=True, size="tiny"),
    )
    edges = tuple(
        Edge(
            node.parent,
            node.label,
            (
                Shift(PROBE, "probe-truth", row("auroc_difference", -0.05, node.label, "base")),
                Shift(CKA, "cka-truth", row("debiased_cka_mean", 0.97, node.label, "base")),
            )
            if node.measured
            else (
                Shift(PROBE, "probe-truth", None, "its job failed"),
                Shift(CKA, "cka-truth", None, "its job failed"),
            ),
        )
        for node in nodes
        if node.parent
    )
    lead = Grid(
        ("stage", "parent", "probe", "CKA"),
        tuple((it.stage, it.parent, *(shift.row for shift in it.shifts)) for it in edges),
        {"probe": PROBE.says, "CKA": CKA.says},
    )
    sections = (
        Section(
            key="probe-truth",
            analysis="probe",
            data="truth",
            title=f"probe on truth {HOSTILE}",
            about="Linear probes by layer, cross-validated over groups.",
            findings=(f"No stage differs from its parent. {HOSTILE}",),
            lead=Grid(
                ("stage", "best layer", "auroc", "p (max)", "note"),
                tuple((it, 3, curve(it)[-1], 0.02, HOSTILE) for it in stages[1:]),
            ),
            figures=(figure("auroc", stages[1:]), figure("auroc-all", stages[:1])),
            notes=(f"note {HOSTILE}",),
        ),
        Section(
            key="cka-truth",
            analysis="cka",
            data="truth",
            title="cka on truth",
            about="Debiased linear CKA.",
            findings=("think_sft moves most.",),
            lead=Grid(
                ("stage", "mean"), (("think_sft", row("debiased_cka_mean", 0.97, "think_sft")),)
            ),
            figures=(heat("map"),),
        ),
    )
    return Study(
        title=f"study {HOSTILE}",
        asked="2 of 3 stages against base with probe and cka on truth.",
        question="What does every stage do?",
        prediction="Little.",
        findings=("think_sft moves most (CKA 0.97 [0.87, 1.07]).", f"1 job failed. {HOSTILE}"),
        nodes=nodes,
        edges=edges,
        lead=lead,
        sections=sections,
        problems=(
            Problem(
                "model=think_dpo", "failed", f"no disk {HOSTILE}", "sweeps/a", "python run.py -m"
            ),
        ),
        warnings=(f"two stages have the same weights {HOSTILE}",),
        commands=("python run.py -m model=think_sft,think_dpo",),
        sources=(
            Source(
                stage="think_sft",
                reference="base",
                analysis="probe",
                data="truth",
                folder="outputs/probe/think_sft.tiny.vs.base/truth.0123",
                digest="0123456789abcdef",
                result="fedcba9876543210",
                models={"think_sft": "miniature@main 645e7602", "base": "miniature@main 3786a604"},
                data_digest="77332f3c",
                code="olmo-stages 0.1.0 (b5090bf)",
                finished="2026-11-22T06:00:00+00:00",
                seconds=12.5,
                tracked="wandb sync outputs/wandb/offline-run-20261122_060000-0123456789abcdef",
            ),
        ),
        versions={"torch": "2.13.0", "python": "3.11"},
        made=datetime.datetime(2026, 11, 22, 6, 0, tzinfo=datetime.UTC),
        sweeps=("outputs/sweeps/a",),
    )
