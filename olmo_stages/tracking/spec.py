"""A study's report on W&B and its saved view, as the library's objects, built without a network."""

import re
import unicodedata
from typing import Any

from olmo_stages.document import Study
from olmo_stages.tracking import blocks, library, panels
from olmo_stages.tracking.runsets import Home, filters
from olmo_stages.tracking.sent import sent_of

_LONGEST_TITLE = 128
_NO_EMOJI = ("So", "Sk", "Sm", "Sc", "Cs")
"""Categories of characters that the library takes for emoji, `<` and `+` among them."""


def build(study: Study, entity: str = "", project: str = "", *, online: bool = False) -> Any:  # noqa: ANN401  (of a library that is imported late)
    """Return the report of a study.

    Args:
        study: what it says.
        entity: W&B user or team that owns it; as long as it is empty, runs are named, not linked.
        project: of the report.
        online: name the project of each set of runs; the library then asks the server for it when
            the report is turned into its specification.

    Returns:
        A `wandb_workspaces.reports.v2.Report`, not saved.
    """
    wr = library.reports()
    sent, home = sent_of(study), Home(entity, project, online)
    content = [wr.TableOfContents(), *blocks.opening(study, sent)]
    for section in study.sections:
        runs = panels.runs_of(section, study, sent)
        content += blocks.section_blocks(section, runs, study, home)
    content += blocks.problems(study)
    content += blocks.runs_and_files(study, sent, home)
    content += blocks.provenance(study)
    return wr.Report(
        entity=entity,
        project=project,
        title=_title(study),
        description=" ".join(study.asked.split()),
        blocks=content,
        width="fluid",
    )


def workspace(study: Study, entity: str = "", project: str = "") -> Any:  # noqa: ANN401  (of a library that is imported late)
    """Return a saved view of the study's runs: a part for each section, curves by layer.

    The runs are filtered by group, not grouped: the panels would show means over stages.

    Args:
        study: whose runs.
        entity: W&B user or team that owns it.
        project: of the view.

    Returns:
        A `wandb_workspaces.workspaces.Workspace`, not saved.
    """
    ws = library.workspaces()
    sent, parts, colours = sent_of(study), [], {}
    for section in study.sections:
        runs = panels.runs_of(section, study, sent)
        if not runs:
            continue
        held, looks = panels.logged(runs), panels.lines(runs, study)
        colours |= {run: ws.RunSettings(color=look.colour) for run, look in looks.items()}
        named = " ".join(section.title.split())
        main = [
            *panels.line_plots(held.main, looks),
            *panels.bar_plots(held.numbers, len(runs)),
            *panels.others(held.figures),
        ]
        parts.append(_part(named, main, is_open=True))
        if held.further:
            more = panels.line_plots(held.further, looks, plain=True)
            parts.append(_part(f"{named}: further curves", more, is_open=False))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=_view_name(study),
        sections=parts,
        settings=ws.WorkspaceSettings(x_axis="layer", max_runs=max(len(sent), 1)),
        runset_settings=ws.RunsetSettings(filters=filters(sent), run_settings=colours),
    )


def _part(name: str, shown: list[Any], *, is_open: bool) -> Any:  # noqa: ANN401  (of a library that is imported late)
    ws = library.workspaces()
    return ws.Section(
        name=name,
        panels=shown,
        is_open=is_open,
        pinned=is_open,
        panel_settings=ws.SectionPanelSettings(x_axis="layer"),
    )


def _title(study: Study) -> str:
    """The study's title without what would end the path of the report's address."""
    plain = re.sub(r"[/\\?#%]+", "-", " ".join(study.title.split()))
    return plain[:_LONGEST_TITLE] or "olmo-stages"


def _view_name(study: Study) -> str:
    title = _title(study)
    kept = (" " if unicodedata.category(it) in _NO_EMOJI else it for it in title)
    return " ".join("".join(kept).split()) or "olmo-stages"
