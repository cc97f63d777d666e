"""A command line as text: its overrides, the sweep it names, and how to give it again."""

import json
import re
import shlex
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from olmo_stages.atomic import safe_name, write_file
from olmo_stages.errors import ConfigError
from olmo_stages.provenance import redact_arguments

_FILE = "command.json"
_OVERRIDE = re.compile(r"([+~]{0,2}\w[\w./@-]*=|~)")
# Where, how and under what name a job runs; none of it changes what is run.
_EXECUTION = re.compile(
    r"^[+~]*(force|sweep|report|outputs|cache|tracking\b.*|compute\.(device|device_map|token_budget|threads)|hydra\b.*)="
)
_NO_JOBS = {"--hydra-help", "-sc", "--shell-completion"}


def changes_job(override: str) -> bool:
    """Whether an override says what is run, rather than where and how."""
    return _EXECUTION.match(override) is None


def completed(arguments: Sequence[str]) -> list[str]:
    """The arguments with `sweep=NAME`, named after what is run, unless the user named it.

    The same command therefore comes back to the same folder and the same group of runs. All
    overrides end up together, because Hydra refuses one that follows a flag which follows another.

    Raises:
        ConfigError: `sweep` or `outputs` cannot be used as a folder.
    """
    if _NO_JOBS & set(arguments):
        return list(arguments)
    overrides = [argument for argument in arguments if _OVERRIDE.match(argument)]
    _check_folders(overrides)
    first = arguments.index(overrides[0]) if overrides else 0
    rest = [argument for argument in arguments[first:] if not _OVERRIDE.match(argument)]
    return [*arguments[:first], *overrides, *_sweep(overrides), *rest]


def record(folder: Path, program: str, arguments: Sequence[str]) -> None:
    """Note in a sweep's folder the command that launched it, without secrets.

    Raises:
        StoreError: the folder cannot be written.
    """
    # A job that is done already would be done again with force=true.
    kept = [it for it in redact_arguments(arguments) if not re.match(r"[+]*force=", it)]
    words = ["python", program] if program.endswith(".py") else program.split()
    write_file(folder / _FILE, json.dumps([*words, *kept]).encode())


def recorded(folder: Path) -> str | None:
    """The command that launched a sweep, quoted for a shell; None where none was noted."""
    try:
        words = json.loads((folder / _FILE).read_bytes())
        return shlex.join(words)
    except (OSError, ValueError, TypeError):
        return None


def _sweep(overrides: Sequence[str]) -> list[str]:
    if any(re.match(r"[+]*sweep=", it) for it in overrides):
        return []
    what = sorted(it for it in overrides if changes_job(it))
    words = [
        it.partition("=")[2]
        for it in what
        if re.match(r"[+]?(analysis|model|experiment|data)=", it)
    ]
    digest = sha256("\n".join(what).encode()).hexdigest()[:8]
    return [f"sweep={safe_name('-'.join([*words, digest]).replace(',', '+'))}"]


def _check_folders(overrides: Sequence[str]) -> None:
    for override in overrides:
        key, _, raw = override.partition("=")
        value = raw.strip().strip("'\"")
        nothing = value.lower() in {"", "null", "none"}
        if key.lstrip("+") == "sweep" and (nothing or safe_name(value) != value):
            raise ConfigError(
                f"{override} is no name for a sweep; use at most 64 letters, digits and ._@+=-"
            )
        if key.lstrip("+") == "outputs" and nothing:
            raise ConfigError(f"{override} names no folder; give one, e.g. outputs=outputs")
