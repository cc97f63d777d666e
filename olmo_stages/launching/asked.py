"""Which jobs a command line stands for, before any of them starts."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from olmo_stages import command
from olmo_stages.errors import ConfigError
from olmo_stages.expected import Expected, place_of, told, write_expected
from olmo_stages.launching.explanation import KNOWN
from olmo_stages.stages import searching


def named(words: Iterable[str]) -> tuple[list[str], str]:
    """Of the words that a job is given, those that say what is run, and its name after them."""
    overrides = [it for it in words if command.changes_job(it)]
    return overrides, ",".join(sorted(overrides)) or "defaults"


def asked_for(config: Any) -> list[Expected]:  # noqa: ANN401  (DictConfig)
    """The jobs of a sweep before any of them starts; none where another sweeper makes them up."""
    if not _is_told(config):
        return []
    try:
        parsed = _parsed(config)
        jobs = map(named, BasicSweeper.split_arguments(parsed, max_batch_size=None)[0])
        otherwise = _same_for_all(
            config, {it.key_or_group for it in parsed if it.is_sweep_override()}
        )
        with searching(config_roots(config.hydra)):
            return [Expected(name, given, told(given, otherwise)) for given, name in jobs]
    except KNOWN:  # Hydra says the same next
        return []


def words_of_jobs(config: Any) -> list[list[str]]:  # noqa: ANN401  (DictConfig)
    """The words of each job of a sweep before any of them starts, each job once.

    Raises:
        ConfigError: another sweeper makes them up as it goes.
        HydraException: they stand for no jobs.
    """
    if not _is_told(config):
        raise ConfigError(
            f"hydra/sweeper={config.hydra.runtime.choices.get('hydra/sweeper')} makes up its jobs "
            "as it goes, and nobody knows them beforehand; leave hydra/sweeper or dry_run out"
        )
    jobs = BasicSweeper.split_arguments(_parsed(config), max_batch_size=None)[0]
    found: dict[frozenset[str], list[str]] = {}
    for it in jobs:
        found.setdefault(frozenset(it), list(it))
    return [*found.values()]


def note(sweep_dir: Path, jobs: Sequence[Expected], words: Sequence[str]) -> Path | None:
    """Write down which jobs a sweep has; the file, where nothing was asked like that before."""
    known = not jobs or place_of(sweep_dir, jobs).exists()
    path = write_expected(sweep_dir, jobs, words) if jobs else None
    return None if known else path


def config_roots(settings: Any) -> list[Path]:  # noqa: ANN401  (DictConfig)
    """The folders of configs besides this package's own."""
    return [
        Path(source.path)
        for source in settings.runtime.config_sources
        if source.schema == "file" and source.provider != "main"
    ]


def _is_told(config: Any) -> bool:  # noqa: ANN401  (DictConfig)
    """Whether the command line names all jobs."""
    return config.hydra.sweeper._target_.endswith(f".{BasicSweeper.__name__}")


def _parsed(config: Any) -> list[Any]:  # noqa: ANN401  (DictConfig)
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    return parser.parse_overrides([*words, *config.hydra.overrides.task])


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
