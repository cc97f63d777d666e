"""From a command line to jobs: the only module that knows Hydra.

A job's outcome is a small file in the sweep's folder, because a job may run in another process or
on another machine. A failing job of a sweep never takes others with it; the last table and the exit
code tell of it.
"""

import contextlib
import errno
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from olmo_stages import command
from olmo_stages.atomic import disk_trouble
from olmo_stages.errors import ConfigError, OlmoStagesError, StoreError
from olmo_stages.expected import Expected, place_of, told, write_expected
from olmo_stages.stages import conf_folder, searching
from olmo_stages.statuses import Status, read_statuses, write_status

# Before anything imports torch: its threads spin while they wait, and with more threads than cores
# (a sweep of several processes, a shared machine) that makes each up to thirty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "Sequence[int]": "a list of whole numbers, e.g. [3,7]",
    "Sequence[str]": "a list of texts, e.g. [a,b]",
    "Sequence[float]": "a list of numbers, e.g. [0.1,1]",
    "None": "null",
}
_DONE = frozenset({"ok", "cached"})
_KNOWN = (OlmoStagesError, HydraException, OmegaConfBaseException, OSError)


@dataclass
class _Launch:
    """What the launching process remembers of what it launched."""

    arguments: Sequence[str] = ()
    sweep: Path | None = None
    jobs: Collection[str] = ()
    expected: Path | None = None
    report: bool = False
    error: BaseException | None = None


_launch = _Launch()


class RememberSweep(Callback):
    """Notes where the sweep is; Hydra 1.3 calls nothing at the end of one that failed."""

    def on_multirun_start(self, config: Any, **kwargs: object) -> None:  # noqa: ANN401  (DictConfig)
        """Remember the sweep's folder, and note there what launched it and which jobs it has."""
        del kwargs
        _launch.sweep, _launch.report = Path(config.hydra.sweep.dir), config.report is True
        # Where the folder cannot be written, Hydra fails next, with the reason.
        with contextlib.suppress(StoreError):
            command.record(_launch.sweep, sys.argv[0], _launch.arguments)
            jobs = _asked_for(config)
            _launch.jobs = {it.job for it in jobs}
            words = command.spelt(sys.argv[0], _launch.arguments)
            _launch.expected = _note(_launch.sweep, jobs, words)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for; exits with 0, or 1 (a job failed), or 2 (bad request).

    Args:
        arguments: command line without the program's name; None = this process's own.

    Raises:
        Exception: what went wrong, with its traceback, if HYDRA_FULL_ERROR=1 asks for it.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    vars(_launch).update(vars(_Launch(arguments)))
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        sys.argv = [sys.argv[0], *command.completed(arguments)]
        with _raising():
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(
                task
            )()
            if _launch.error is not None:
                raise _launch.error
    except _KNOWN as error:
        if _is_request(error) and _launch.expected is not None:
            _launch.expected.unlink(missing_ok=True)  # nobody can run what was mistyped
        if wants_traceback:
            raise
        _say(explain(error))
        sys.exit(2 if _is_request(error) else 1)
    except KeyboardInterrupt:
        _finish_sweep(together=False)
        _say("interrupted; the same command goes on from here")
        sys.exit(130)
    if not _finish_sweep():
        sys.exit(1)


def task(cfg: Any) -> None:  # noqa: ANN401  (a DictConfig, which the type hook does not take)
    """One job: compose it, run it, and leave word of how it went."""  # noqa: DOC501
    settings = HydraConfig.get()
    multirun = settings.mode == RunMode.MULTIRUN
    folder = Path(settings.sweep.dir if multirun else settings.run.dir)
    overrides, name = _named(settings.overrides.task)
    started = time.time()
    try:
        write_status(folder, Status(name, "running", overrides=overrides))
        if not multirun:
            command.record(folder, sys.argv[0], _launch.arguments)
            _warn_of_study(settings)
        write_status(folder, _run(cfg, settings, name, overrides))
        if not multirun:
            _say_how_to_report(folder)
    except KeyboardInterrupt:
        write_status(folder, _failed(name, overrides, started, "interrupted"))
        raise
    # A sweep goes on whatever stops one of its jobs, SystemExit and MemoryError included.
    except BaseException as error:  # noqa: BLE001
        if not multirun:
            # Not raised through Hydra, which would print a line of its own before it.
            _launch.error = error
        else:
            text = explain(error) if isinstance(error, _KNOWN) else traceback.format_exc()
            _say(f"job {name} failed: {text}")
        try:
            write_status(folder, _failed(name, overrides, started, explain(error)))
        except StoreError as unwritten:
            _launch.error = _launch.error or unwritten


def _named(words: Iterable[str]) -> tuple[list[str], str]:
    """Of the words that a job is given, those that say what is run, and its name after them."""
    overrides = [it for it in words if command.changes_job(it)]
    return overrides, ",".join(sorted(overrides)) or "defaults"


def _note(sweep_dir: Path, jobs: Sequence[Expected], words: Sequence[str]) -> Path | None:
    """Write down which jobs a sweep has; the file, where nothing was asked like that before."""
    known = not jobs or place_of(sweep_dir, jobs).exists()
    path = write_expected(sweep_dir, jobs, words) if jobs else None
    return None if known else path


def _asked_for(config: Any) -> list[Expected]:  # noqa: ANN401  (DictConfig)
    """The jobs of a sweep before any of them starts; none where another sweeper makes them up."""
    sweeper = config.hydra.sweeper
    if not sweeper._target_.endswith(f".{BasicSweeper.__name__}"):
        return []
    try:
        words = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        parsed = parser.parse_overrides([*words, *config.hydra.overrides.task])
        jobs = map(_named, BasicSweeper.split_arguments(parsed, max_batch_size=None)[0])
        otherwise = _same_for_all(
            config, {it.key_or_group for it in parsed if it.is_sweep_override()}
        )
        with searching(_config_roots(config.hydra)):
            return [Expected(name, given, told(given, otherwise)) for given, name in jobs]
    except _KNOWN:  # Hydra says the same next
        return []


def _same_for_all(config: Any, swept: Collection[str]) -> dict[str, str]:  # noqa: ANN401
    """What the configuration says of every job of a sweep, where no override does."""
    if "experiment" in swept:
        return {}
    choices = config.hydra.runtime.choices
    same = {name: choices.get(name) for name in ("model", "analysis", "data")}
    same |= {"size": config.size, "reference": config.reference or "none"}
    if "model" not in swept:
        names = ("model.revision", "model.name", "model.path", "model.parent")
        same |= {name: OmegaConf.select(config, name) for name in names}
    return {name: str(value) for name, value in same.items() if value is not None}


def compose(arguments: Sequence[str]) -> list[Any]:
    """The jobs that a command line stands for, built and not run.

    Args:
        arguments: `key=value` words; several values with commas make several jobs, as with -m.

    Returns:
        An `Experiment` for each.

    Raises:
        ConfigError: the words stand for no job; one line.
    """
    words = [it for it in arguments if it not in {"-m", "--multirun"}]
    try:
        parsed = OverridesParser.create().parse_overrides(words)
        jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
        with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return [
                hydra.utils.instantiate(hydra.compose("config", job), _convert_="all")
                for job in jobs
            ]
    except _KNOWN as error:
        raise ConfigError(explain(error)) from error


def _warn_of_study(settings: Any) -> None:  # noqa: ANN401  (DictConfig)
    """Say so if a study's own sweep is not run because -m is missing."""
    study = settings.runtime.choices.get("experiment")
    if study and settings.sweeper.get("params"):
        swept = ", ".join(settings.sweeper.params)
        _say(f"note: +experiment={study} sweeps over {swept} only with -m; this is one job of it")


def _say_how_to_report(folder: Path) -> None:
    from olmo_stages.report.show import show_lines

    show_lines([f"as a page: olmo-stages report {shlex.quote(str(folder))}"])


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201  (no console is set up here)


def _run(cfg: Any, settings: Any, name: str, overrides: list[str]) -> Status:  # noqa: ANN401
    """Build the experiment, run it and show its table."""
    with searching(_config_roots(settings)):
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


def _config_roots(settings: Any) -> list[Path]:  # noqa: ANN401  (DictConfig)
    """The folders of configs besides this package's own."""
    return [
        Path(source.path)
        for source in settings.runtime.config_sources
        if source.schema == "file" and source.provider != "main"
    ]


@contextmanager
def _raising() -> Iterator[None]:
    """Make Hydra raise what it would print in four to eight lines."""
    wanted = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
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
    return (
        _unparsed(chain)
        or _unknown_key(chain[-1])
        or _not_told(texts)
        or _bad_argument(texts)
        or _unusable(chain[-1])
        or _one_line(chain[-1])
    )


def _unparsed(chain: Sequence[BaseException]) -> str | None:
    """What is wrong with a word that is neither a flag nor `key=value`."""
    words = [error.override for error in chain if isinstance(error, OverrideParseException)]
    if words and "=" not in words[0]:
        return f"{words[0]}: write key=value, e.g. model=think_sft"
    return None


def _unusable(error: BaseException) -> str | None:
    """What an unusable folder or a full disk says."""
    # A missing file is for reading; what is missing for writing is made.
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return None
    if not error.filename and error.errno != errno.ENOSPC:
        return None
    return disk_trouble(Path(error.filename or "results"), error)


def _unknown_key(error: BaseException) -> str | None:
    """What OmegaConf says of a key that a config does not have."""
    unknown = re.search(r"Key '([^']+)' is not in struct", str(error))
    if unknown is None:
        return None
    keys = [str(key) for key in getattr(error, "parent_node", None) or ()]
    keys = [key for key in keys if not key.startswith("_") and key != "hydra"]
    full = re.search(r"full_key: (\S+)", str(error))
    name = full[1] if full else unknown[1]
    return f"{name}: no such option; there are {', '.join(keys)}" + _hint(unknown[1], keys)


def _not_told(texts: str) -> str | None:
    """What a study says that refers to something the chosen stage or size does not have."""
    missing = re.search(r"Interpolation key '([^']+)' not found", texts)
    if missing is None:
        return None
    return f"there is no {missing[1]}; choose a stage and size for which conf/model has it"


def _bad_argument(texts: str) -> str | None:
    """What a dataclass, or the type hook, says of an argument; Hydra adds where it stands."""
    key = re.search(r"full_key: ([\w.]+)", texts)
    where = f"{key[1]}." if key else ""
    if mistyped := re.search(
        r"parameter '(\w+)'\.\s*Actual value: (.*)\s*Expected type: (.*?)\.?\n", texts + "\n"
    ):
        option, value, wanted = mistyped.groups()
        wanted = re.sub(r"<class '(.*?)'>|collections\.abc\.", r"\1", wanted)
        return f"{where}{option}={value} is not {_in_words(wanted)}"
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", texts):
        return f"{where}{unknown[1]}: no such option"
    if missing := re.search(r"missing (?:a required|\d+ required).*?argument:? (.*)", texts):
        return f"{where}{missing[1]} is missing"
    return None


def _in_words(kind: str) -> str:
    """A Python type as what may be written on the command line."""
    kinds = [it.strip() for it in kind.split("|")]
    if not set(kinds) <= set(_KINDS):
        return f"of type {kind}"
    return ", or ".join(_KINDS[it] for it in kinds)


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


def _finish_sweep(*, together: bool = True) -> bool:
    """Show the sweep's table, then what its jobs say together; whether all asked for is done.

    A mishap in assembling is one line: the results stand, and the exit code tells of the jobs.
    """
    if _launch.sweep is None:
        return True
    statuses = read_statuses(_launch.sweep, ended=True)
    from olmo_stages.report.across import assemble
    from olmo_stages.report.show import show_across, show_sweep

    show_sweep(statuses, _launch.sweep)
    if together:
        try:
            show_across(assemble(_launch.sweep, statuses))
        except OlmoStagesError as error:
            _say(f"not assembled: {error}")
        if _launch.report and any(status.state in _DONE for status in statuses):
            _report(_launch.sweep)
    # An earlier launch may have asked the same sweep for others, which this one cannot answer for.
    own = [it for it in statuses if not _launch.jobs or it.job in _launch.jobs]
    return all(status.state in _DONE for status in own)


def _report(sweep: Path) -> None:
    """Make the report of a sweep that has ended; a fault in it costs a line and nothing else."""
    from olmo_stages.report.delivery import deliver_sweep

    again = f"olmo-stages report {shlex.quote(str(sweep))}"
    try:
        deliver_sweep(sweep)
    except KeyboardInterrupt:
        _say(f"no report: interrupted; {again} makes it")
    # Jobs may be a week's work and are done; what a report trips over must not look as if not.
    except Exception as error:  # noqa: BLE001
        why = str(error) if isinstance(error, OlmoStagesError) else _one_line(error)
        _say(f"no report: {why}; {again} tries once more")
