"""`olmo-stages`: stages, sweeps, the store and the miniature family, from any folder."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from olmo_stages.atomic import REFUSALS, disk_trouble
from olmo_stages.errors import OlmoStagesError

app = typer.Typer(
    help="What did each post-training stage do to this model?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
store = typer.Typer(help="The store of activations.", no_args_is_help=True)
mini = typer.Typer(help="The miniature family, size=tiny.", no_args_is_help=True)
app.add_typer(store, name="store")
app.add_typer(mini, name="miniature")

Cache = Annotated[
    str | None,
    typer.Option(envvar="OLMO_STAGES_CACHE", help="Cache folder; default: the user's cache."),
]
Shown = Annotated[Literal["text", "json"], typer.Option(help="A table, or JSON.")]
_AGE_S = {"min": 60.0, "h": 3600.0, "d": 86400.0, "": 86400.0, "w": 7 * 86400.0}
_SIZE = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "": 1e9, "tb": 1e12}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)")


def parse_age(text: str) -> float:
    """Seconds of an age like 30d.

    Raises:
        BadParameter: it is none.
    """
    return _amount(text, _AGE_S, "30d, 12h, 90min or 2w")


def parse_size(text: str) -> int:
    """Bytes of a size like 200GB.

    Raises:
        BadParameter: it is none.
    """
    return int(_amount(text, _SIZE, "500MB, 200GB or 1.5TB"))


def _amount(text: str, units: Mapping[str, float], examples: str) -> float:
    match = _NUMBER.fullmatch(str(text).strip().lower())
    if match is None or match[2] not in units:
        raise typer.BadParameter(f"{text} is none; write {examples}")
    return float(match[1]) * units[match[2]]


Seed = Annotated[int, typer.Option(help="Seed of the family.")]


def main() -> None:
    """Run the command line; what a user can mend is one line on standard error."""  # noqa: DOC501
    try:
        app()
    except OlmoStagesError as error:
        typer.echo(f"olmo-stages: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        place = Path(error.filename or "a file")
        typer.echo(f"olmo-stages: {disk_trouble(place, error)}", err=True)
        sys.exit(1)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def run(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Run an analysis, or sweep with -m: the same as `python run.py`."""
    from olmo_stages import launch

    sys.argv[0] = "olmo-stages run"
    launch.main(arguments or [])


@app.command("plan")
def plan_run(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="The words of a run: model=think_sft,think_dpo ...")
    ] = None,
    format: Shown = "text",
) -> None:
    """Say what a run needs of memory, disk and time, before anything is downloaded."""
    from olmo_stages import launch, plan

    needs = plan.plan(launch.compose(arguments or []))
    if format == "json":
        typer.echo(plan.to_json(needs))
    else:
        plan.show(needs)


@app.command()
def stages(
    size: Annotated[str | None, typer.Option(help="Only stages of this size.")] = None,
) -> None:
    """Show the lineage: sizes and repository ids; of one size also formats and revisions."""
    from olmo_stages.report.show import show_stages
    from olmo_stages.stages import releases

    show_stages(releases(size), with_details=size is not None)


@app.command()
def revisions(
    stage: Annotated[str, typer.Argument(help="Name of a stage.")],
    size: Annotated[
        str, typer.Option(envvar="OLMO_STAGES_SIZE", help="One of its sizes.")
    ] = "tiny",
    log_spaced: Annotated[
        int | None, typer.Option(help="So many at even distances of log(steps).")
    ] = None,
    match: Annotated[str | None, typer.Option(help="Only names like this: 'stage1-*'.")] = None,
    format: Shown = "text",
) -> None:
    """List the revisions of a stage in the order of training, and the line that runs them."""
    from olmo_stages.revisions import listing

    found = listing.choose(listing.revisions_of(stage, size), match=match, log_spaced=log_spaced)
    if format == "json":
        typer.echo(listing.to_json(found))
    else:
        listing.show(found)


@app.command("doctor")
def examine(
    online: Annotated[  # noqa: FBT002  (a flag of the command line)
        bool, typer.Option("--online", help="Ask the model hub, too.")
    ] = False,
    outputs: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("outputs"),
    cache: Cache = None,
    format: Shown = "text",
) -> None:
    """Look whether this machine is fit; exits with 1 if something must be mended."""  # noqa: DOC501
    from olmo_stages import doctor
    from olmo_stages.cache import cache_folder

    findings = doctor.examine(doctor.Machine(cache_folder(cache), outputs, online))
    if format == "json":
        typer.echo(doctor.to_json(findings))
    else:
        doctor.show(findings)
    if doctor.has_error(findings):
        raise typer.Exit(1)


@app.command()
def report(  # noqa: PLR0913  (options of the command line)
    sweeps: Annotated[
        list[Path], typer.Argument(metavar="SWEEP", help="OUTPUTS/sweeps/NAME, one or more.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder for page and table; default: SWEEP/report, or OUTPUTS/reports/A+B.",
        ),
    ] = None,
    format: Annotated[
        Literal["text", "json", "csv", "md"],
        typer.Option(
            help="Of the lead table; with json, csv or md, standard output has nothing else."
        ),
    ] = "text",
    everything: Annotated[  # noqa: FBT002  (a flag of the command line)
        bool, typer.Option("--all", help="Also the tables of each analysis: jobs, stage x stage.")
    ] = False,
    wandb: Annotated[  # noqa: FBT002  (a flag of the command line)
        bool, typer.Option("--wandb", help="Also build a report and a workspace in W&B.")
    ] = False,
    no_page: Annotated[  # noqa: FBT002  (a flag of the command line)
        bool, typer.Option("--no-page", help="Write the table only.")
    ] = False,
    show: Annotated[  # noqa: FBT002  (a flag of the command line)
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
) -> None:
    """Make the report of sweeps from their files: lead table, page, and all measurements.

    Several sweeps are seen together: the same stages in other analyses, or other stages.
    Jobs that failed or are missing are told of and do not matter to the exit code: it is 0 when
    the report was made, 1 when a folder holds no sweep, the report cannot be written, or --wandb
    saved nothing.
    """  # noqa: DOC501
    from olmo_stages.report.delivery import Wanted, deliver

    if show and no_page:
        raise typer.BadParameter("--open needs the page; leave --no-page out")
    if everything and format != "text":
        raise typer.BadParameter("--all is for --format text")
    if not deliver(sweeps, Wanted(output, format, everything, wandb, not no_page, show)):
        raise typer.Exit(1)


@app.command("export")
def export_vectors(  # noqa: PLR0913  (options of the command line)
    folder: Annotated[Path, typer.Argument(help="Folder of a job's result, or of a sweep.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder, or a file for one vector; default: here."),
    ] = None,
    format: Annotated[
        Literal["safetensors", "gguf", "steering-vectors"],
        typer.Option(help="gguf is for llama.cpp and repeng."),
    ] = "safetensors",
    trait: Annotated[str | None, typer.Option(help="Only this trait.")] = None,
    layers: Annotated[str | None, typer.Option(help="Only these layers: 3,7 or 3-7.")] = None,
    side: Annotated[
        Literal["stage", "reference"], typer.Option(help="Whose vector of the comparison.")
    ] = "stage",
    unit: Annotated[  # noqa: FBT002  (a flag of the command line)
        bool, typer.Option("--unit", help="Divide each vector by its length.")
    ] = False,
    force: Annotated[  # noqa: FBT002  (a flag of the command line)
        bool, typer.Option("--force", help="Replace files that are there already.")
    ] = False,
) -> None:
    """Write trait vectors as files that this package or other tools load."""
    from olmo_stages import export

    wanted = export.Wanted(format, trait, export.parse_layers(layers), side, unit, force)
    for line in export.describe(export.export(folder, output, wanted), format):
        typer.echo(line)


@mini.command("build")
def build(
    stages: Annotated[
        list[str] | None, typer.Argument(help="STAGE or STAGE@REVISION; default: all of OLMo 3.")
    ] = None,
    cache: Cache = None,
    seed: Seed = 0,
) -> None:
    """Train what is missing of the miniature family."""
    from olmo_stages import miniature
    from olmo_stages.cache import cache_folder

    wanted = [name.partition("@") for name in stages or miniature.FAMILIES["olmo3"]]
    pairs = [(name, revision or "main") for name, _, revision in wanted]
    for path in miniature.ensure_many(pairs, root=cache_folder(cache) / "miniature", seed=seed):
        typer.echo(str(path))


@mini.command("table")
def table(
    stages: Annotated[list[str] | None, typer.Argument(help="Stages; default: OLMo 3.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Also put it into this Markdown page.")
    ] = None,
    cache: Cache = None,
    seed: Seed = 0,
) -> None:
    """Measure what each stage does on held-out prompts (builds what is missing)."""
    from olmo_stages import miniature
    from olmo_stages.cache import cache_folder
    from olmo_stages.miniature import behaviour

    root = cache_folder(cache) / "miniature"
    rows = behaviour.behaviour_table(stages or miniature.FAMILIES["olmo3"], root=root, seed=seed)
    typer.echo(behaviour.to_markdown(rows))
    if output is not None:
        behaviour.write_table(rows, output)


@mini.command("clean")
def clean(cache: Cache = None) -> None:
    """Remove the miniature family from the cache; it is built again when it is needed."""
    from olmo_stages import miniature
    from olmo_stages.cache import cache_folder

    root = cache_folder(cache) / "miniature"
    typer.echo(f"{miniature.clean(root) / 1e6:.0f} MB freed in {root}")


@store.command("ls")
def store_ls(cache: Cache = None) -> None:
    """List the entries, and the weights that were computed from others."""
    from olmo_stages.activations.store import default_store
    from olmo_stages.activations.upkeep import ls
    from olmo_stages.cache import cache_folder
    from olmo_stages.models.derived import FOLDER
    from olmo_stages.report.show import show_entries

    root = cache_folder(cache)
    show_entries(ls(default_store(root), root / FOLDER), root, "empty")


@store.command("verify")
def store_verify(cache: Cache = None) -> None:
    """Read every entry and compare it with its digests; exits with 1 if one is damaged."""  # noqa: DOC501
    from olmo_stages.activations.store import default_store
    from olmo_stages.activations.upkeep import verify
    from olmo_stages.cache import cache_folder
    from olmo_stages.report.show import show_entries

    found = default_store(cache_folder(cache))
    rows = verify(found)
    show_entries(rows, found.root, "empty")
    if any(row.problem for row in rows):
        typer.echo("remove what is damaged: olmo-stages store gc --damaged")
        raise typer.Exit(1)


@store.command("gc")
def store_gc(
    older_than: Annotated[
        float | None,
        typer.Option(
            parser=parse_age,
            metavar="AGE",
            help="Remove what was not used for so long: 30d, 12h, 2w; a number is days.",
        ),
    ] = None,
    max_size: Annotated[
        int | None,
        typer.Option(
            parser=parse_size,
            metavar="SIZE",
            help="Then the least recently used, down to so much: 200GB, 1.5TB; a number is GB.",
        ),
    ] = None,
    damaged: Annotated[  # noqa: FBT002  (a flag of the command line)
        bool, typer.Option("--damaged", help="Read every entry and remove the damaged ones.")
    ] = False,
    dry_run: Annotated[  # noqa: FBT002  (a flag of the command line)
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
    cache: Cache = None,
) -> None:
    """Remove leftovers of killed writers and, with limits, old entries; never one in use.

    Entries are activations, responses, and weights that were computed from others. What a job left
    unfinished goes after a week, or by the limits: until then the job may go on with it.
    """
    from olmo_stages.activations.cleaning import Limits, gc
    from olmo_stages.activations.store import default_store
    from olmo_stages.cache import cache_folder
    from olmo_stages.models.derived import FOLDER
    from olmo_stages.report.show import show_cleaned

    def on_wait(n_held: int, seconds: float) -> None:
        what = "one entry is" if n_held == 1 else f"{n_held} entries are"
        typer.echo(
            f"{what} held; {seconds:.0f} s until it is known whether by living jobs", err=True
        )

    root = cache_folder(cache)
    limits = Limits(older_than, max_size, damaged, dry_run)
    cleaned = gc(default_store(root), limits, root / FOLDER, on_wait)
    show_cleaned(cleaned, root, is_dry_run=dry_run)
