"""A command line as text: its overrides, the sweep it names, and how to give it again."""

import json
import re
import shlex
from collections.abc import Iterable, Sequence, Set
from hashlib import sha256
from pathlib import Path

from olmo_stages.atomic import OUTPUTS, safe_name, write_file
from olmo_stages.errors import ConfigError
from olmo_stages.expected import Launch, read_launches
from olmo_stages.provenance import redact_arguments

_FILE = "command.json"
_OVERRIDE = re.compile(r"([+~]{0,2}\w[\w./@-]*=|~)")
# Where, how and under what name a job runs; none of it changes what is run.
_EXECUTION = re.compile(
    r"^[+~]*(force|sweep|report|dry_run|outputs|cache|tracking\b.*|compute\.(device|device_map|token_budget|threads)|hydra\b.*)="
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


def spelt(program: str, arguments: Sequence[str]) -> list[str]:
    """The words of a command that does only what is not done yet, without secrets."""
    # A job that is done already would be done again with force=true.
    kept = [it for it in redact_arguments(arguments) if not re.match(r"[+]*force=", it)]
    words = ["python", program] if program.endswith(".py") else program.split()
    return [*words, *kept]


def record(folder: Path, program: str, arguments: Sequence[str]) -> None:
    """Note in a sweep's folder the command that launched it, without secrets.

    Raises:
        StoreError: the folder cannot be written.
    """
    write_file(folder / _FILE, json.dumps(spelt(program, arguments)).encode(), OUTPUTS)


def recorded(folder: Path) -> str | None:
    """The command that launched a sweep last, quoted for a shell; None where none was noted."""
    try:
        words = json.loads((folder / _FILE).read_bytes())
        return shlex.join(words)
    except (OSError, ValueError, TypeError):
        return None


def launches(folder: Path) -> tuple[str, ...]:
    """The commands that launched a sweep, each once, the earliest first, quoted for a shell."""
    noted = [shlex.join(it.command) for it in read_launches(folder) if it.command]
    return tuple(dict.fromkeys(noted or filter(None, [recorded(folder)])))


def again(folder: Path, jobs: Iterable[str]) -> tuple[str, ...]:
    """The commands that do jobs of a sweep again, quoted for a shell: one for each launch of it.

    Of several launches that asked for a job it is the last. Of a launch's jobs the command asks for
    those wanted and as few others as a product of values allows, all of it where that is not known.
    A job that no list names is taken for one of the command that was noted last, and so is every
    job where no list has a command.
    """
    found = read_launches(folder)
    last = {it.job: launch for launch in found for it in launch.jobs}
    has_none = not any(it.command for it in found)
    wanted = set(jobs)
    commands = [
        shlex.join(_narrowed(launch, own, folder.name))
        for launch in found
        if launch.command and (own := {job for job in wanted if last.get(job) is launch})
    ]
    if any(has_none or job not in last for job in wanted):
        commands += filter(None, [recorded(folder)])
    return tuple(dict.fromkeys(commands))


def _narrowed(launch: Launch, wanted: Set[str], sweep: str) -> list[str]:
    """The words that ask for some jobs of a launch, in the folder that they are in."""
    values: dict[str, dict[str, None]] = {}
    for job in launch.jobs:
        for override in job.overrides if job.job in wanted else ():
            key, equals, value = override.partition("=")
            values.setdefault(key + equals, {})[value] = None
    if not values or wanted >= {it.job for it in launch.jobs}:
        return list(launch.command)
    kept = [it for it in launch.command if not (_OVERRIDE.match(it) and changes_job(it))]
    named = any(re.match(r"[+]*sweep=", it) for it in kept)
    words = [key + ",".join(found) for key, found in values.items()]
    return [*kept, *words, *([] if named else [f"sweep={sweep}"])]


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
