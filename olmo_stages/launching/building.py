"""The experiment of a job that is not the one that runs."""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict, read_write

from olmo_stages import command
from olmo_stages.expected import read_expected
from olmo_stages.launching.explanation import KNOWN
from olmo_stages.types import Stage


def composed(config: Any, words: list[str]) -> Any:  # noqa: ANN401  (DictConfig)
    """The configuration of another job of a sweep.

    Args:
        config: of the sweep, or of one of its jobs; Hydra's own settings are enough.
        words: overrides of the job.
    """
    return GlobalHydra.instance().config_loader().load_sweep_config(config, words)


def built(config: Any) -> Any:  # noqa: ANN401  (DictConfig)
    """The experiment of a configuration, which becomes Hydra's current one."""
    HydraConfig.instance().set_config(config)
    own = copy.deepcopy(config)
    with read_write(own), open_dict(own):
        del own["hydra"]
    OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    return hydra.utils.instantiate(own, _convert_="all")


def others_of(sweep: Path, name: str, stages: Collection[Stage]) -> Iterator[Any]:
    """The experiments of a sweep that may read some stages with the same data as one of its jobs.

    Args:
        sweep: folder of the sweep.
        name: of the job, whose configuration is Hydra's current one.
        stages: those stages.
    """
    jobs = {it.job: it for it in read_expected(sweep)}
    mine = jobs.pop(name, None)
    # What reads a stage reads it with random weights, too.
    labels = {replace(it, random_init=None).label for it in stages}
    before: Any = HydraConfig.instance().cfg
    # Where and how jobs run is the same for all, and not noted with them.
    same = [it for it in before.hydra.overrides.task if not command.changes_job(it)]
    for it in jobs.values():
        if mine is None or not _may_share(it.about, mine.about, labels):
            continue
        # One that cannot be built says so itself when it is its turn.
        with suppress(*KNOWN):
            try:
                yield built(composed(before, [*it.overrides, *same]))
            finally:
                HydraConfig.instance().cfg = before


def _may_share(one: Mapping[str, str], other: Mapping[str, str], stages: set[str]) -> bool:
    """Whether a job may read some stages, and another's data, as far as their words tell."""
    data = {it["data"] for it in (one, other) if "data" in it}
    return bool(stages & {one.get("stage"), one.get("reference")}) and len(data) < 2
