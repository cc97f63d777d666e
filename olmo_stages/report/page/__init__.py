"""The page of a report: one HTML file that opens from disk and asks no network for anything.

What tests and scripts may hold on to:

- ids: `skip`, `theme` (button), `contents` (nav), `question`, `findings`, `problems`, `lineage`,
  `lead`, `section-KEY`, `figure-SECTION.KEY`, `provenance`, `data` (the dialog of a figure's
  rows) and `tip` (the tooltip).
- the lineage: `svg.lineage` holds a `g.stage[data-stage]` a stage and in it a
  `g.mark[data-section][data-state]` a number, where the state is `differs`, `holds` (the interval
  holds the unchanged value), `open` (no interval) or `unknown`. It is drawn once in `.wide`, with
  all numbers, and for phones a number at a time in `.narrow`; one of them is shown.
- tables: `table.grid` within `.scroll`; heads are `th[aria-sort] > button`; `td[data-v]` is what a
  number is sorted by; `.num[data-tip]` shows what is known of a number; `input.filter` before long
  ones. `.scroll[data-more]` says to which sides there is more (`left`, `right`).
- figures: `figure.figure[data-figure][data-state]`, where the state goes from `waiting` to `drawn`
  or `broken`; in it `select.choice` (several choices), `select.view` (plotly's own menu),
  `button.rows`, `button.image[data-format]` (png, svg), `.plot` and `figcaption`. `body` has
  `data-figures="drawn"` when all are. `script.packed` holds a figure, `script.packed.tables` the
  rows behind those of a section.
- the dialog: `#data` with `.filter`, `.csv` (download), `.close` and a `table.grid`.
- commands: `.command > pre` and `button.copy`.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from olmo_stages import atomic
from olmo_stages.document import Grid, Study
from olmo_stages.report.lead import UNCHANGED, placed
from olmo_stages.report.page.cells import table
from olmo_stages.report.page.lineage import lineage, narrow_lineages
from olmo_stages.report.page.packed import DIGITS, packed
from olmo_stages.report.page.said import gathered, names_of

_SCRIPTS = ("page.js", "tables.js", "figures.js", "rows.js")


def write(study: Study, path: Path) -> None:
    """Write the page of a study, atomically.

    Raises:
        StoreError: the place cannot be written.
    """
    # A lone surrogate in a text of the data is no reason to have no page.
    atomic.write_file(path, render(study).encode("utf-8", "replace"))


def render(study: Study) -> str:
    """Return the page of a study: HTML with its style, scripts, drawings and data inside."""
    from plotly.offline import get_plotlyjs

    scripts = [_script()]
    scripts += [get_plotlyjs()] if any(it.figures for it in study.sections) else []
    drawn = lineage(study) if study.nodes else None
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            study=study,
            names=names_of(study),
            lineage=drawn,
            narrow=narrow_lineages(study) if drawn is not None else [],
            lead=table(study.lead, placed(study), drawn.told if drawn is not None else {}),
            unchanged=UNCHANGED,
            provenance=_provenance(study),
            digits=DIGITS,
            style=_own("page.css"),
            scripts=scripts,
            policy=_policy(scripts),
        )
    )


def _script() -> str:
    """The page's own script: its files in a scope of their own, which they share."""
    return '"use strict";\n(() => {\n' + "\n".join(map(_own, _SCRIPTS)) + "})();\n"


def _policy(scripts: Sequence[str]) -> str:
    """A content security policy under which nothing is fetched and no other script runs."""
    hashes = (base64.b64encode(hashlib.sha256(it.encode()).digest()).decode() for it in scripts)
    allowed = " ".join(f"'sha256-{it}'" for it in hashes)
    # plotly sets style attributes; with nothing to fetch from, a style can leak nothing.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _own(name: str) -> str:
    return (resources.files("olmo_stages.report.page") / name).read_text("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("olmo_stages.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(table=table, packed=packed, gathered=gathered)
    environment.tests["address"] = _is_address
    return environment


def _is_address(text: str) -> bool:
    return text.startswith(("https://", "http://")) and not any(it.isspace() for it in text)


def _provenance(study: Study) -> dict[str, Grid]:
    """Models, data sets, jobs and versions as tables."""
    models = {(label, it) for source in study.sources for label, it in source.models.items()}
    data = {(it.data, it.data_digest) for it in study.sources}
    tables = {
        "Models": Grid(("stage", "weights"), tuple(sorted(models))),
        "Versions": Grid(("software", "version"), tuple(study.versions.items())),
        "Data": Grid(("data", "digest of its texts and labels"), tuple(sorted(data))),
    }
    return {title: grid for title, grid in tables.items() if grid.rows}
