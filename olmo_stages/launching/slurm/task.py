"""One job of a sweep on a node of the cluster: composed again there from its words.

What is pickled for the node is one text of JSON. Configuration objects would tie it to the versions
of everything in them, and a job may wait for days.
"""

import hashlib
import json
import os
import re
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf, open_dict

from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.launching.asked import named
from olmo_stages.launching.ending import DONE
from olmo_stages.launching.explanation import KNOWN, explain
from olmo_stages.launching.job import Attempt
from olmo_stages.launching.screen import say
from olmo_stages.launching.slurm.options import PREFIX
from olmo_stages.statuses import Status, read_statuses, write_status

FORMAT = 1
"""Version of the text."""

# What submitit says at the last of `max_timeouts`.
_NOT_AGAIN = "timed-out too many times"
_TOO_OFTEN = (
    f"reached its time limit once more than {PREFIX}.max_timeouts; give it more {PREFIX}.time, and "
    "the same command goes on from there"
)
_DECIDES = ("model", "data", "analysis", "compute", "size", "reference", "seed")
_PASSED_ON = re.compile(r"^((OLMO_STAGES|HF|HUGGINGFACE|TRANSFORMERS|WANDB|XDG)_|OMP_WAIT_POLICY$)")
_SECRET = re.compile(r"KEY|TOKEN|PASS|SECRET|CREDENTIAL", re.IGNORECASE)


class SlurmTask:
    """What submitit runs on a node.

    Args:
        text: what `describe` wrote.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self) -> None:
        """Run the job and leave by exit code 1 where it did not end well.

        Raises:
            SystemExit: it failed; its status says why.
        """
        told: dict[str, Any] = json.loads(self.text)
        job, sweep = told["job"], Path(told["sweep"])
        try:
            _enter(told)
            _run(told)
        # Whatever it is, somebody who waits for the job must learn of it.
        except Exception as error:  # noqa: BLE001
            why = _TOO_OFTEN if _NOT_AGAIN in str(error) else explain(error)
            known = isinstance(error, KNOWN)
            say(f"job {job} failed: {why if known else traceback.format_exc()}")
            with suppress(StoreError):
                overrides = named(told["words"])[0]
                write_status(sweep, Status(job, "failed", error=why, overrides=overrides))
            sys.exit(1)
        # What a job says of itself is a file; Slurm's accounting shall agree with it.
        if read_statuses(sweep, [job])[0].state not in DONE:
            sys.exit(1)

    def checkpoint(self) -> Any:  # noqa: ANN401  (submitit has no types)
        """What runs when the job is queued again: the same, for progress is on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def describe(
    config: Any,  # noqa: ANN401  (DictConfig)
    loader: Any,  # noqa: ANN401  (Hydra's ConfigLoader)
    job: str,
    words: list[str],
    number: int,
) -> dict[str, Any]:
    """All that a node must know of a job.

    Args:
        config: of the sweep.
        loader: Hydra's, which composed it.
        job: name.
        words: overrides of the job.
        number: of the job in its sweep.

    Returns:
        JSON data.
    """
    composed = loader.load_sweep_config(config, list(words))
    search = [[it.provider, it.path] for it in loader.get_search_path().get_path()]
    return {
        "format": FORMAT,
        "job": job,
        "words": list(words),
        "number": number,
        "hydra": list(config.hydra.overrides.hydra),
        "config_name": config.hydra.job.config_name,
        "task_name": config.hydra.job.name,
        "search_path": search,
        "program": sys.argv[0],
        "cwd": str(Path.cwd()),
        "sweep": str(Path(config.hydra.sweep.dir).absolute()),
        "environment": passed_on(os.environ),
        "identity": identity(composed),
        "size": str(composed.size),
    }


def identity(config: Any) -> dict[str, str]:  # noqa: ANN401  (DictConfig)
    """Digest of each part of a job's configuration that can change its numbers."""
    found: dict[str, str] = {}
    for key in _DECIDES:
        node = OmegaConf.select(config, key)
        value = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        text = json.dumps(value, sort_keys=True, default=str)
        found[key] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def differing(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """The parts in which two configurations differ."""
    return [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of the launching shell that a job needs, none of them secret.

    Sites that start jobs with an empty environment would otherwise run another size, or look for
    models elsewhere.
    """
    return {
        key: value
        for key, value in environment.items()
        if _PASSED_ON.match(key) and not _SECRET.search(key)
    }


def _enter(told: Mapping[str, Any]) -> None:
    """Be where the launching process was.

    Raises:
        ConfigError: its folder is not on this node, or it was of another version.
    """
    if told["format"] != FORMAT:
        raise ConfigError("it was submitted by another version of olmo-stages; submit it again")
    try:
        os.chdir(told["cwd"])
    except OSError as error:
        raise ConfigError(
            f"{told['cwd']} is not on this node; launch from a folder that all nodes see"
        ) from error
    # Needed for the start alone: `python -m` would put the working directory first.
    os.environ.pop("PYTHONSAFEPATH", None)
    for key, value in told["environment"].items():
        os.environ.setdefault(key, value)  # what the lines of `setup` say counts more
    sys.argv = [told["program"], *told["words"]]


def _run(told: Mapping[str, Any]) -> None:
    """Compose the job and run it as one of its sweep.

    Raises:
        ConfigError: its configuration is no longer the one that was submitted.
    """
    version.setbase("1.3")
    Plugins.instance()
    path = ConfigSearchPathImpl()
    for provider, place in told["search_path"]:
        path.append(provider, place)
    loader = Hydra.create_main_hydra2(told["task_name"], path).config_loader
    config = loader.load_configuration(
        config_name=told["config_name"],
        overrides=[*told["hydra"], *told["words"]],
        run_mode=RunMode.RUN,
    )
    if changed := differing(identity(config), told["identity"]):
        raise ConfigError(
            f"the configuration of {', '.join(changed)} is not the one that was submitted; give "
            "the command again"
        )
    with open_dict(config.hydra):
        config.hydra.mode = RunMode.MULTIRUN
        config.hydra.job.num = told["number"]
        config.hydra.job.id = told["job"]
    ended = run_job(
        hydra_context=HydraContext(config_loader=loader, callbacks=Callbacks(config)),
        task_function=lambda cfg: Attempt(HydraConfig.get(), sys.argv[0]).run(cfg),
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    # Raises what went wrong outside of the job's own account, as submitit does at a time limit.
    _ = ended.return_value
