"""`olmo-stages doctor`: is this machine fit, and what to type where it is not.

Quick, and without network unless asked.
"""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from olmo_stages import environment
from olmo_stages.environment import EXTRAS, Finding
from olmo_stages.provenance import versions

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}
_ONLINE_PATIENCE = 5.0
_LITTLE_DISK = 2e9  # the miniature family and a few stores of activations
_PIPED_WIDTH = 110


@dataclass(frozen=True)
class Machine:
    """Where to look.

    Args:
        cache: folder of activations and the miniature family.
        outputs: folder of the results.
        online: whether to ask the hub.
    """

    cache: Path
    outputs: Path
    online: bool = False


def examine(machine: Machine) -> tuple[Finding, ...]:
    """Look at everything.

    Returns:
        Findings in the order of the table.
    """
    checks: tuple[Callable[[], Sequence[Finding]], ...] = (
        lambda: [environment.python_version(sys.version_info[:3])],
        environment.torch_devices,
        lambda: [environment.transformers_version(versions(["transformers"])["transformers"])],
        lambda: [environment.library("tokenizers", "transformers>=5.13")],
        environment.hub,
        lambda: [environment.reach(_ONLINE_PATIENCE)] if machine.online else [],
        lambda: [environment.wandb()],
        lambda: [environment.folder("cache", machine.cache, _LITTLE_DISK)],
        lambda: [environment.folder("outputs", machine.outputs, _LITTLE_DISK)],
        lambda: [environment.miniature(machine.cache)],
        lambda: [*map(environment.extra, EXTRAS)],
        lambda: [environment.slurm(shutil.which)],
        lambda: environment.same_weights(machine.outputs),
    )
    return tuple(finding for check in checks for finding in check())


def has_error(findings: Sequence[Finding]) -> bool:
    """Whether something must be mended before jobs can be trusted to run."""
    return any(finding.state == "error" for finding in findings)


def to_json(findings: Sequence[Finding]) -> str:
    """The findings as a JSON list."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def show(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print the table."""
    console = console or _console()
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("remedy", overflow="fold")
    for it in findings:
        state = Text(it.state, style=_STYLES[it.state])
        table.add_row(Text(it.name), state, Text(it.found), Text(it.remedy))
    console.print(table)


def _console() -> Console:
    return Console() if Console().is_terminal else Console(width=_PIPED_WIDTH)
