"""`olmo-stages`: stages, sweeps, the store and the miniature family, from any folder."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from olmo_stages.errors import OlmoStagesError
from olmo_stages.stages import catalogue

if TYPE_CHECKING:
    from rich.tree import Tree

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
Seed = Annotated[int, typer.Option(help="Seed of the family.")]


def main() -> None:
    """Run the command line; what a user can mend is one line on standard error."""
    try:
        app()
    except OlmoStagesError as error:
        typer.echo(f"olmo-stages: {error}", err=True)
        sys.exit(1)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def run(context: typer.Context) -> None:
    """Run an analysis, or sweep with -m: the same as `python run.py`."""
    from olmo_stages import launch

    sys.argv[0] = "olmo-stages run"
    launch.main(context.args)


@app.command()
def stages(
    size: Annotated[str | None, typer.Option(help="Only stages of this size.")] = None,
) -> None:
    """Show the lineage as a tree, with sizes and repository ids."""
    from rich.console import Console

    Console().print(_lineage(size))


def _lineage(size: str | None) -> "Tree":
    from rich.tree import Tree

    from olmo_stages.types import check_choice

    specs = catalogue()
    if size is not None:
        sizes = dict.fromkeys(s for spec in specs.values() for s in spec["sources"])
        check_choice("size", size, tuple(sizes))
    root = Tree("stages (model=NAME)")
    nodes: dict[str, Tree] = {}
    for name, spec in specs.items():
        sources = {k: v for k, v in spec["sources"].items() if size in {None, k}}
        if not sources:
            continue
        nodes[name] = nodes.get(spec["parent"] or "", root).add(f"[bold]{name}[/bold]")
        for key, source in sources.items():
            nodes[name].add(f"[dim]{key:<5}[/dim] {source}")
    root.add("[bold]custom[/bold]").add("model.path=DIRECTORY or HUB_ID, model.parent=STAGE or null")
    return root


@app.command()
def report(sweep: Annotated[Path, typer.Argument(help="Folder of a sweep.")]) -> None:
    """Show the comparison table of a sweep that was run before."""
    from olmo_stages.report.show import show_sweep
    from olmo_stages.statuses import read_statuses

    statuses = read_statuses(sweep)
    if not statuses:
        typer.echo(f"olmo-stages: {sweep} holds no sweep; give OUTPUTS/sweeps/NAME", err=True)
        raise typer.Exit(1)
    show_sweep(statuses, sweep)


@mini.command("build")
def build(
    stages: Annotated[
        list[str] | None, typer.Argument(help="STAGE or STAGE@REVISION; default: all.")
    ] = None,
    cache: Cache = None,
    seed: Seed = 0,
) -> None:
    """Train what is missing of the miniature family."""
    from olmo_stages import miniature
    from olmo_stages.cache import cache_folder

    wanted = [name.partition("@") for name in stages or miniature.STAGES]
    pairs = [(name, revision or "main") for name, _, revision in wanted]
    for path in miniature.ensure_many(pairs, root=cache_folder(cache) / "miniature", seed=seed):
        typer.echo(str(path))
