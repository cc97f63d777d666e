"""Which runs panels show, and where runs and their files are found on the server."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from olmo_stages.tracking import library
from olmo_stages.tracking.run_layout import artifact_name
from olmo_stages.tracking.sent import Sent

_NO_GROUP = "runs"


@dataclass(frozen=True)
class Home:
    """Where a report lives.

    Args:
        entity: W&B user or team; empty = not known yet.
        project: of the report.
        online: whether sets of runs name their project, for which the library asks the server.
    """

    entity: str
    project: str
    online: bool = False


def run_sets(runs: Sequence[Sent], home: Home, colours: Mapping[str, str]) -> list[Any]:
    """Return one set of runs for each group that the runs are in; it shows these runs only.

    By group alone runs of jobs that were redone with other options would show up too.

    Args:
        runs: what is shown.
        home: where the report lives.
        colours: of the runs, by id.
    """
    wr = library.reports()
    sets = []
    for (entity, project, group), members in _by_group(runs, home).items():
        place = {"entity": entity, "project": project} if home.online else {}
        one = wr.Runset(
            **place,
            name=group or _NO_GROUP,
            filters=filters(members),
            order=[wr.OrderBy("CreatedTimestamp", ascending=True)],
            run_settings={it.run_id: wr.RunSettings(colours[it.run_id]) for it in members},
        )
        sets.append(one)
    return sets


def filters(runs: Sequence[Sent]) -> str:
    """Return the expression that holds for these runs, in their groups."""
    groups = list(dict.fromkeys(it.group for it in runs))
    by_id = f'Metric("ID") in {_list([it.run_id for it in runs])}'
    if "" in groups:
        return by_id
    if len(groups) == 1:
        return f'Metric("Group") == {_quoted(groups[0])} and {by_id}'
    return f'Metric("Group") in {_list(groups)} and {by_id}'


def run_url(run: Sent, home: Home) -> str:
    """Return the address of a run; empty as long as its owner is not known."""
    if run.url:
        return run.url
    root = _project_url(run, home)
    return root and f"{root}/runs/{quote(run.run_id, safe='')}"


def artifact_url(run: Sent, home: Home) -> str:
    """Return the address of the files of a run; empty as long as its owner is not known."""
    name = quote(artifact_name(run.source.analysis, run.run_id), safe="")
    if run.url:
        return f"{run.url.rpartition('/runs/')[0]}/artifacts/result/{name}"
    root = _project_url(run, home)
    return root and f"{root}/artifacts/result/{name}"


def _by_group(runs: Sequence[Sent], home: Home) -> dict[tuple[str, str, str], list[Sent]]:
    found: dict[tuple[str, str, str], list[Sent]] = {}
    for run in runs:
        key = (run.entity or home.entity, run.project or home.project, run.group)
        found.setdefault(key, []).append(run)
    return found


def _project_url(run: Sent, home: Home) -> str:
    import wandb

    entity, project = run.entity or home.entity, run.project or home.project
    if not entity or not project:
        return ""
    root = wandb.setup().settings.app_url.rstrip("/")
    return f"{root}/{quote(entity, safe='')}/{quote(project, safe='')}"


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(_quoted, texts))}]"


def _quoted(text: str) -> str:
    """Return a literal that the library reads back as it is.

    It looks for `=`, `<` and `>` by regular expression, in literals too, and doubles them.
    """
    return '"' + re.sub(r"[^A-Za-z0-9_.-]", lambda it: f"\\U{ord(it[0]):08x}", text) + '"'
