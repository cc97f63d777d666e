"""What a job asks of Slurm: the keys of conf/hydra/launcher/slurm.yaml, as sbatch wants them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from olmo_stages.errors import ConfigError

PREFIX = "hydra.launcher"
"""What the keys are called on the command line."""

RESOURCES = ("gpus", "cpus", "memory", "time")
"""Keys with a default for each size."""

NOTHING = "none"
"""What a key is set to so that sbatch is not asked for it, whatever the default."""

_FLAGS = ("partition", "account", "qos", "constraint", "gres")
_KEYS = {"gpus-per-node": "gpus", "cpus-per-task": "cpus", "mem": "memory"}
_OF_GPUS = frozenset({"gres", "gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket"})
_OF_MEMORY = frozenset({"mem", "mem-per-cpu", "mem-per-gpu"})
_OF_CPUS = frozenset({"cpus-per-task", "cpus-per-gpu"})
# How these keys are called elsewhere.
_CALLED = {
    "timeout_min": "time",
    "walltime": "time",
    "gpus_per_node": "gpus",
    "gpus_per_task": "gpus",
    "cpus_per_task": "cpus",
    "mem_gb": "memory",
    "mem": "memory",
    "queue": "partition",
    "additional_parameters": "options",
    "max_num_timeout": "max_timeouts",
}
_OWN = "is set here already"
_ONE = "a job is one process on one node"
_REFUSED = {
    "array": f"{_OWN}; {PREFIX}.array_parallelism limits how many jobs run at a time",
    "output": f"{_OWN}; logs lie in the sweep's folder",
    "error": f"{_OWN}; logs lie in the sweep's folder",
    "open-mode": _OWN,
    "signal": f"{_OWN}; {PREFIX}.signal_delay_s says how early",
    "chdir": f"{_OWN}: where the command is given",
    "clusters": "several clusters are not supported; give the command on the one that is meant",
    "nodes": _ONE,
    "ntasks": _ONE,
    "ntasks-per-node": _ONE,
    "time": f"write {PREFIX}.time",
    "partition": f"write {PREFIX}.partition",
    "account": f"write {PREFIX}.account",
    "qos": f"write {PREFIX}.qos",
    "constraint": f"write {PREFIX}.constraint",
    "mem": f"write {PREFIX}.memory",
    "cpus-per-task": f"write {PREFIX}.cpus",
}
_TIME = re.compile(r"^(?:(?P<days>\d+)-)?(?P<a>\d+)(?::(?P<b>\d+))?(?::(?P<c>\d+))?$")
_UNITS = {"m": 1, "min": 1, "h": 60, "d": 24 * 60}


@dataclass(frozen=True)
class Resources:
    """What jobs of one size ask for.

    Args:
        minutes: time limit.
        flags: further options of sbatch, without their dashes; True = one without a value.
    """

    minutes: int
    flags: Mapping[str, str | bool]

    @property
    def device(self) -> str:
        """What the jobs compute on, `cuda` or `cpu`."""
        return "cuda" if _OF_GPUS & self.flags.keys() else "cpu"

    @property
    def n_gpus(self) -> int:
        """How many GPUs a job is given."""
        asked = [str(value) for key, value in self.flags.items() if key in _OF_GPUS]
        last = [part.rpartition(":")[2] for it in asked for part in it.split(",")]
        return sum(int(it) if it.isdigit() else 1 for it in last)

    def __str__(self) -> str:
        return ", ".join(self._asked())

    @property
    def spelt(self) -> str:
        """The same as one may write it on the command line."""
        return " ".join(f"{PREFIX}.{it}" for it in self._asked())

    def _asked(self) -> list[str]:
        found = [f"time={duration(self.minutes)}"]
        for flag, value in self.flags.items():
            key = _KEYS.get(flag, flag if flag in _FLAGS else f"options.{flag}")
            found.append(f"{key}={'true' if value is True else value}")
        return found


@dataclass(frozen=True)
class Options:
    """The keys of the launcher, checked.

    Args:
        given: what is the same for all sizes: partition, account, qos, constraint, gres, and of
            gpus, cpus, memory, time those that are set.
        sizes: gpus, cpus, memory and time by size of the stage.
        options: further options of sbatch, without their dashes.
        array_parallelism: most jobs of an array that run at a time.
        setup: lines of shell that run before a job.
        signal_delay_s: seconds ahead of the time limit at which a job is told to stop.
        max_timeouts: how often a job may reach its time limit and go on in a new one.
        poll_s: longest pause between two questions to Slurm.
    """

    given: Mapping[str, Any]
    sizes: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, str | bool] = field(default_factory=dict)
    array_parallelism: int = 32
    setup: Sequence[str] = ()
    signal_delay_s: int = 120
    max_timeouts: int = 100
    poll_s: float = 30.0

    def resources(self, size: str) -> Resources:
        """What a job of a size asks for.

        Raises:
            ConfigError: nothing says how much a job of that size needs.
        """
        of_size = self.sizes.get(size, {})
        asked = {it: self.given.get(it, of_size.get(it)) for it in RESOURCES}
        missing = [it for it in RESOURCES if asked[it] is None]
        if missing:
            known = ", ".join(self.sizes)
            raise ConfigError(
                f"{PREFIX} has no {missing[0]} for size={size}, only for {known}; give "
                + ", ".join(f"{PREFIX}.{it}=..." for it in missing)
            )
        flags: dict[str, str | bool] = {
            it: _word(it, self.given[it]) for it in _FLAGS if self.given.get(it) is not None
        }
        own = {*self.options, *flags}
        for key, value, others in (
            ("gpus-per-node", _gpus(asked["gpus"]), _OF_GPUS),
            ("cpus-per-task", _whole("cpus", asked["cpus"], least=1), _OF_CPUS),
            ("mem", _memory(asked["memory"]), _OF_MEMORY),
        ):
            if value is not None and not others & own:
                flags[key] = value
        return Resources(minutes(asked["time"]), {**flags, **self.options})

    def signal_s(self, limit_min: int) -> int:
        """Seconds ahead of a time limit at which a job is told to stop; a short job gets fewer."""
        return max(1, min(self.signal_delay_s, limit_min * 60 // 4))


def read_options(params: Mapping[str, Any]) -> Options:
    """The keys of the launcher as they were composed, checked.

    Raises:
        ConfigError: an unknown key or an impossible value.
    """
    known = [*_FLAGS, *RESOURCES, *(it.name for it in fields(Options) if it.name != "given")]
    for key in params:
        if key not in known:
            raise ConfigError(f"{PREFIX}.{key}: no such option; {_instead(str(key), known)}")
    options = Options(
        {it: params[it] for it in (*_FLAGS, *RESOURCES) if params.get(it) is not None},
        _sizes(params.get("sizes") or {}),
        _further(params.get("options") or {}),
        _whole_number("array_parallelism", params.get("array_parallelism", 32), least=1),
        _lines(params.get("setup")),
        _whole_number("signal_delay_s", params.get("signal_delay_s", 120), least=1),
        _whole_number("max_timeouts", params.get("max_timeouts", 100), least=0),
        _seconds("poll_s", params.get("poll_s", 30.0)),
    )
    for size in options.sizes:
        options.resources(size)
    return options


def minutes(value: Any) -> int:  # noqa: ANN401  (whatever was typed)
    """A time limit in whole minutes, rounded up.

    Args:
        value: minutes, or as sbatch takes it (`8:00:00`, `2-00:00:00`), or `90m`, `8h`, `2d`.

    Raises:
        ConfigError: it is none of these.
    """
    text = str(value).strip()
    if unit := re.fullmatch(r"(\d+) ?(m|min|h|d)", text):
        found = int(unit[1]) * _UNITS[unit[2]]
    elif match := _TIME.match(text):
        found = _of_parts(match)
    else:
        found = 0
    if found < 1:
        raise ConfigError(f"{PREFIX}.time={text} is no time; write 90m, 8h, 2d or 8:00:00")
    return found


def duration(limit_min: int) -> str:
    """A time limit as Slurm shows it."""
    days, rest = divmod(limit_min, 24 * 60)
    return (f"{days}-" if days else "") + f"{rest // 60:02}:{rest % 60:02}:00"


def _of_parts(match: re.Match[str]) -> int:
    a, b, c = (int(it) if it else 0 for it in match.group("a", "b", "c"))
    if match["days"]:  # days-hours[:minutes[:seconds]]
        seconds = ((int(match["days"]) * 24 + a) * 60 + b) * 60 + c
    elif match["c"]:  # hours:minutes:seconds
        seconds = (a * 60 + b) * 60 + c
    else:  # minutes[:seconds]
        seconds = a * 60 + b
    return -(-seconds // 60)


def _instead(key: str, known: Sequence[str]) -> str:
    if key in _CALLED:
        return f"write {PREFIX}.{_CALLED[key]}"
    near = get_close_matches(key, known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"there are {', '.join(known)}{hint}; what else sbatch knows goes to {PREFIX}.options"


def _sizes(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    for size, of_size in given.items():
        for key in of_size or {}:
            if key not in RESOURCES:
                raise ConfigError(
                    f"{PREFIX}.sizes.{size}.{key}: no such option; {_instead(str(key), RESOURCES)}"
                )
    return {str(size): dict(of_size or {}) for size, of_size in given.items()}


def _further(given: Mapping[str, Any]) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {}
    for name, value in given.items():
        flag = str(name).strip("-").replace("_", "-")
        if flag in _REFUSED:
            raise ConfigError(f"{PREFIX}.options.{name}: {_REFUSED[flag]}")
        if value is None or value is False:
            continue
        found[flag] = True if value is True else _word(f"options.{name}", value)
    return found


def _lines(given: Any) -> tuple[str, ...]:  # noqa: ANN401  (whatever was typed)
    lines = [] if given is None else [given] if isinstance(given, str) else list(given)
    return tuple(str(it) for it in lines)


def _gpus(value: Any) -> str | None:  # noqa: ANN401
    text = _word("gpus", value)
    if text in {NOTHING, "0"}:
        return None
    if not re.fullmatch(r"([\w.-]+:)?[1-9]\d*", text):
        raise ConfigError(f"{PREFIX}.gpus={text} is neither a number nor TYPE:NUMBER, e.g. a100:1")
    return text


def _memory(value: Any) -> str | None:  # noqa: ANN401
    text = _word("memory", value).upper().removesuffix("B")
    if text == NOTHING.upper():
        return None
    if not re.fullmatch(r"\d+[KMGT]?", text):
        raise ConfigError(
            f"{PREFIX}.memory={value} is no memory; write 64G, or none to leave it to the cluster"
        )
    return text if text == "0" or not text.isdigit() else f"{text}G"


def _whole(name: str, value: Any, *, least: int) -> str | None:  # noqa: ANN401
    return None if str(value) == NOTHING else str(_whole_number(name, value, least=least))


def _whole_number(name: str, value: Any, *, least: int) -> int:  # noqa: ANN401
    if not re.fullmatch(r"\d+", str(value)) or int(value) < least:
        raise ConfigError(f"{PREFIX}.{name}={value} is not a whole number of at least {least}")
    return int(value)


def _seconds(name: str, value: Any) -> float:  # noqa: ANN401
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = 0.0
    if not 0 < found < float("inf"):
        raise ConfigError(f"{PREFIX}.{name}={value} is not a number of seconds above 0")
    return found


def _word(name: str, value: Any) -> str:  # noqa: ANN401
    text = str(value)
    if not text or "\n" in text:
        raise ConfigError(f"{PREFIX}.{name}={text!r} cannot be given to sbatch; give one line")
    return text
