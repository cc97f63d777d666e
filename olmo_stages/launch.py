"""From a command line to jobs: the only module that knows Hydra.

A job's outcome is a small file in the sweep's folder, because a job may run in another process or
on another machine. A failing job of a sweep never takes others with it; the last table and the exit
code tell of it.
"""

import os
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from olmo_stages.atomic import safe_name
from olmo_stages.errors import ConfigError, OlmoStagesError
from olmo_stages.stages import conf_folder, searching
from olmo_stages.statuses import Status, read_statuses, write_status

# Before anything imports torch: its threads spin while they wait, and with more threads than cores
# (a sweep of several processes, a shared machine) that makes each up to thirty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Where, how and under what name a job runs; none of it changes what is run.
_EXECUTION = re.compile(
    r"^[+~]*(force|sweep|outputs|cache|tracking\b.*|compute\.(device|token_budget|threads)|hydra\b.*)="
)
_OVERRIDE = re.compile(r"^([+~]{0,2}[\w./@-]+=|~)")


@dataclass
class _Launch:
    """What the launching process remembers of what it launched."""

    sweep: Path | None = None
    error: BaseException | None = None


_launch = _Launch()


class RememberSweep(Callback):
    """Notes where the sweep is; Hydra 1.3 calls nothing at the end of one that failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Remember the sweep's folder."""
        del kwargs
        _launch.sweep = Path(config.hydra.sweep.dir)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for; exits with 0, or 1 (a job failed), or 2 (bad request).

    Args:
        arguments: command line without the program's name; None = this process's own.

    Raises:
        Exception: what went wrong, with its traceback, if HYDRA_FULL_ERROR=1 asks for it.
    """  # noqa: DOC501  (raised again as it came)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.argv = [sys.argv[0], *arguments, *_named(arguments)]
    _launch.sweep, _launch.error = None, None
    try:
        with _raising() as wants_traceback:
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(
                task
            )()
            if _launch.error is not None:
                raise _launch.error
    except (HydraException, OmegaConfBaseException, OlmoStagesError) as error:
        if wants_traceback:
            raise
        line = explain(error)
        print(line, file=sys.stderr)  # noqa: T201  (before any console is set up)
        sys.exit(2 if _is_request(error) else 1)
    except KeyboardInterrupt:
        _finish_sweep()
        sys.exit(130)
    if not _finish_sweep():
        sys.exit(1)


def task(cfg: DictConfig) -> None:
    """One job: compose it, run it, and leave word of how it went."""  # noqa: DOC501
    settings = HydraConfig.get()
    multirun = settings.mode == RunMode.MULTIRUN
    folder = Path(settings.sweep.dir if multirun else settings.run.dir)
    overrides = [o for o in settings.overrides.task if not _EXECUTION.match(o)]
    name = ",".join(sorted(overrides)) or "defaults"
    started = time.time()
    write_status(folder, Status(name, "running", overrides=overrides))
    try:
        status = _run(cfg, settings, name, overrides)
    except KeyboardInterrupt:
        write_status(folder, _failed(name, overrides, started, "interrupted"))
        raise
    # A sweep goes on whatever stops one of its jobs, SystemExit and MemoryError included.
    except BaseException as error:  # noqa: BLE001
        write_status(folder, _failed(name, overrides, started, explain(error)))
        if not multirun:
            # Not raised through Hydra, which would print a line of its own before it.
            _launch.error = error
            return
        known = isinstance(error, OlmoStagesError | HydraException | OmegaConfBaseException)
        text = explain(error) if known else traceback.format_exc()
        print(f"job {name} failed: {text}", file=sys.stderr)  # noqa: T201
        return
    write_status(folder, status)


def _run(cfg: DictConfig, settings: Any, name: str, overrides: list[str]) -> Status:  # noqa: ANN401
    """Build the experiment, run it and show its table."""
    roots = [
        Path(source.path)
        for source in settings.runtime.config_sources
        if source.schema == "file" and source.provider != "main"
    ]
    with searching(roots):
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        experiment = hydra.utils.instantiate(cfg, _convert_="all")
        outcome = experiment.run(config)
    from olmo_stages.report.show import show_job

    show_job(
        outcome.job, outcome.result, outcome.folder, cached=outcome.cached, tracked=outcome.tracked
    )
    return Status(
        name,
        "cached" if outcome.cached else "ok",
        folder=str(outcome.folder),
        seconds=outcome.seconds,
        overrides=overrides,
        headline=dict(outcome.result.headline),
        about=outcome.job.about(),
    )


@contextmanager
def _raising() -> Iterator[bool]:
    """Make Hydra raise what it would print in four to eight lines; yields what the user wanted."""
    wanted = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield wanted == "1"
    finally:
        if wanted is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = wanted


def explain(error: BaseException) -> str:
    """One line that names the offending value and what to write instead."""
    chain = _chain(error)
    ours = [cause for cause in chain if isinstance(cause, OlmoStagesError)]
    if ours:
        return str(ours[-1])
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, wrong = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={wrong} does not exist; choose from {', '.join(error.options)}" + _hint(
            wrong, error.options
        )
    texts = "\n".join(map(str, chain))
    return _unknown_key(chain[-1]) or _bad_argument(texts) or _one_line(chain[-1])


def _unknown_key(error: BaseException) -> str | None:
    """What OmegaConf says of a key that a config does not have."""
    unknown = re.search(r"Key '([^']+)' is not in struct", str(error))
    if unknown is None:
        return None
    keys = [str(key) for key in getattr(error, "parent_node", None) or ()]
    full = re.search(r"full_key: (\S+)", str(error))
    name = full[1] if full else unknown[1]
    return f"{name}: no such option; there are {', '.join(keys)}" + _hint(unknown[1], keys)


def _bad_argument(texts: str) -> str | None:
    """What a dataclass, or the type hook, says of an argument; Hydra adds where it stands."""
    key = re.search(r"full_key: ([\w.]+)", texts)
    where = f"{key[1]}." if key else ""
    if mistyped := re.search(
        r"parameter '(\w+)'\.\s*Actual value: (.*)\s*Expected type: (.*?)\.?\n", texts + "\n"
    ):
        option, value, wanted = mistyped.groups()
        wanted = re.sub(r"<class '(.*?)'>|collections\.abc\.", r"\1", wanted)
        return f"{where}{option}={value} is not of type {wanted}"
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", texts):
        return f"{where}{unknown[1]}: no such option"
    if missing := re.search(r"missing (?:a required|\d+ required).*?argument:? (.*)", texts):
        return f"{where}{missing[1]} is missing"
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def _hint(wrong: str, options: Sequence[str]) -> str:
    near = get_close_matches(wrong, options, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _is_request(error: BaseException) -> bool:
    """Whether the command line is at fault, rather than the world."""
    hydras = (HydraException, OmegaConfBaseException)
    causes = [c for c in _chain(error) if isinstance(c, OlmoStagesError)]
    return isinstance(causes[-1], ConfigError) if causes else isinstance(error, hydras)


def _failed(name: str, overrides: list[str], started: float, why: str) -> Status:
    return Status(name, "failed", error=why, seconds=time.time() - started, overrides=overrides)


def _named(arguments: Sequence[str]) -> list[str]:
    """The override that names the sweep after what it runs, unless the user named it.

    The same command therefore comes back to the same folder and the same group of runs.
    """
    overrides = [a for a in arguments if _OVERRIDE.match(a)]
    if any(re.match(r"^\+*sweep=", a) for a in overrides):
        return []
    what = sorted(a for a in overrides if not _EXECUTION.match(a))
    words = [
        a.partition("=")[2] for a in what if re.match(r"^\+?(analysis|model|experiment|data)=", a)
    ]
    digest = sha256("\n".join(what).encode()).hexdigest()[:8]
    return [f"sweep={safe_name('-'.join([*words, digest]).replace(',', '+'))}"]


def _finish_sweep() -> bool:
    """Show the sweep's table; whether every job of it is done."""
    if _launch.sweep is None:
        return True
    statuses = read_statuses(_launch.sweep, ended=True)
    from olmo_stages.report.show import show_sweep

    show_sweep(statuses, _launch.sweep)
    return all(status.state in {"ok", "cached"} for status in statuses)
