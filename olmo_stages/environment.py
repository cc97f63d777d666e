"""What `olmo-stages doctor` looks at: the libraries, the devices, the folders, the logins.

Nothing secret is read into an answer: of a token it says that there is one, never which.
"""

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from olmo_stages.errors import ModelError
from olmo_stages.provenance import versions

State = Literal["ok", "warning", "error"]

_OLDEST_PYTHON = (3, 11)
_OLDEST_TRANSFORMERS = (5, 13)
_GB = 1e9
_STAGE_7B = 14.6e9  # weights of one 7b stage in bfloat16
_PROBE = "allenai/Olmo-3-1025-7B"
_SLURM = ("sbatch", "srun", "squeue", "scontrol")
_WANDB_HOST = "https://api.wandb.ai"
_SETTINGS = {
    "cache": "OLMO_STAGES_CACHE=FOLDER",
    "outputs": "outputs=FOLDER",
    "hub cache": "HF_HOME=FOLDER",
}


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Args:
        name: what was looked at.
        state: `error` = jobs will fail or be wrong; `warning` = some will, or should be looked at.
        found: what there is.
        remedy: what to type or to do, where there is something.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


def python_version(version: tuple[int, int, int]) -> Finding:
    """The interpreter."""
    found = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    if version[:2] < _OLDEST_PYTHON:
        return Finding("python", "error", found, "use Python 3.11 or newer")
    return Finding("python", "ok", found)


def torch_devices() -> list[Finding]:
    """The installed torch, and the GPUs that it sees."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that is not there
        reason = str(error).splitlines()[0]
        return [Finding("torch", "error", reason, "pip install 'torch>=2.13'")]
    installed = Finding("torch", "ok", str(torch.__version__))
    if not torch.cuda.is_available():
        built = torch.version.cuda
        if built is None or shutil.which("nvidia-smi") is None:
            return [installed, Finding("gpu", "ok", "none; jobs run on the CPU")]
        remedy = "compare the driver (nvidia-smi) with torch's CUDA " + built
        return [installed, Finding("gpu", "warning", "torch sees none", remedy)]
    return [installed, *map(_gpu, range(torch.cuda.device_count()))]


def transformers_version(version: str | None) -> Finding:
    """Whether this transformers computes OLMo 3 right."""
    wanted = "pip install 'transformers>=5.13'"
    if version is None:
        return Finding("transformers", "error", "not installed", wanted)
    from olmo_stages.models.guards import check_transformers

    try:
        check_transformers(version)
    except ModelError as error:
        return Finding("transformers", "error", str(error), wanted)
    if _numbers(version) < _OLDEST_TRANSFORMERS:
        return Finding("transformers", "warning", f"{version}, older than what is tested", wanted)
    return Finding("transformers", "ok", version)


def library(name: str, provider: str) -> Finding:
    """A package that must be there; `provider` is what installs it."""
    version = versions([name])[name]
    if version is None:
        return Finding(name, "error", "not installed", f"pip install '{provider}'")
    return Finding(name, "ok", version)


def hub() -> list[Finding]:
    """The hub's library, the login, and the room for weights."""
    installed = library("huggingface_hub", "transformers>=5.13")
    if installed.state == "error":
        return [installed]
    from huggingface_hub import constants

    token = Path(constants.HF_TOKEN_PATH)
    by_variable = any(os.environ.get(it) for it in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    logged_in = by_variable or (token.is_file() and token.stat().st_size > 0)
    offline = constants.HF_HUB_OFFLINE
    said = "logged in" if logged_in else "not logged in; the released stages need no login"
    login = Finding("hub login", "ok", said, "" if logged_in else "hf auth login")
    room = folder("hub cache", Path(constants.HF_HUB_CACHE), _STAGE_7B)
    if offline:
        remedy = "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE to download"
        return [installed, login, Finding("hub mode", "warning", "offline", remedy), room]
    return [installed, login, room]


def reach(patience: float) -> Finding:
    """Whether the hub answers."""
    from olmo_stages.revisions.hub import branches

    try:
        commits = branches(_PROBE, patience)
    except ModelError as error:
        remedy = "check the connection and the proxy; cached stages and size=tiny work without"
        return Finding("hub", "error", str(error), remedy)
    return Finding("hub", "ok", f"{_PROBE}: {len(commits)} revisions")


def wandb() -> Finding:
    """How results would be tracked."""
    installed = library("wandb", "wandb>=0.31")
    if installed.state == "error":
        return installed
    from olmo_stages.tracking.reachability import netrc_has

    mode = os.environ.get("WANDB_MODE", "")
    host = os.environ.get("WANDB_BASE_URL", _WANDB_HOST)
    has_key = bool(os.environ.get("WANDB_API_KEY")) or netrc_has(host)
    if mode in {"offline", "disabled", "dryrun"}:
        return Finding("wandb", "ok", f"{installed.found}, WANDB_MODE={mode}")
    if not has_key:
        said = f"{installed.found}, not logged in: runs are kept offline"
        return Finding("wandb", "ok", said, "wandb login, or tracking=none")
    return Finding("wandb", "ok", f"{installed.found}, logged in")


def folder(name: str, path: Path, wanted: float) -> Finding:
    """Whether a folder, or the one it will be made in, can be written, and how much room it has.

    Args:
        name: what it is for.
        path: the folder; it need not exist, and is not made.
        wanted: bytes below which there is a warning.
    """
    place = path.absolute()
    while not place.exists():
        place = place.parent
    remedy = f"make it writable, or choose another: {_SETTINGS[name]}"
    try:
        if not place.is_dir():
            return Finding(name, "error", f"{place} is not a folder", remedy)
        free = shutil.disk_usage(place).free
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return Finding(name, "error", f"{place}: {error.strerror}", remedy)
    said = f"{path}, {free / _GB:.1f} GB free"
    if free < wanted:
        remedy = f"free {wanted / _GB:.1f} GB, or choose another disk: {_SETTINGS[name]}"
        return Finding(name, "warning", said, remedy)
    return Finding(name, "ok", said)


def miniature(cache: Path) -> Finding:
    """How much of the miniature family, size=tiny, is built; of OLMo 2 only if there is any."""
    from olmo_stages.miniature.family import RECIPE
    from olmo_stages.miniature.recipe import FAMILIES

    home = cache / "miniature" / RECIPE.digest(0)
    counts = {
        family: sum((home / stage).is_dir() for stage in stages)
        for family, stages in FAMILIES.items()
    }
    built, wanted = counts["olmo3"], len(FAMILIES["olmo3"])
    said = f"{built} of {wanted} stages"
    if counts["olmo2"]:
        said += f", {counts['olmo2']} of {len(FAMILIES['olmo2'])} of OLMo 2"
    if built == wanted:
        return Finding("miniature family", "ok", said)
    remedy = "built when it is needed; all at once: olmo-stages miniature build"
    return Finding("miniature family", "ok", said, remedy)


@dataclass(frozen=True)
class Extra:
    """A package that is needed for some things only.

    Args:
        package: its name.
        purpose: what needs it.
        install: the line that installs it.
    """

    package: str
    purpose: str
    install: str


EXTRAS = (
    Extra("bitsandbytes", "8-bit and 4-bit weights", "pip install 'olmo-stages[quantised]'"),
    Extra("peft", "LoRA adapters", "pip install 'olmo-stages[peft]'"),
    Extra("hydra-submitit-launcher", "sweeps on Slurm", "pip install 'olmo-stages[slurm]'"),
)


def extra(wanted: Extra) -> Finding:
    """A package that may be missing."""
    version = versions([wanted.package])[wanted.package]
    if version is None:
        found = f"not installed; only for {wanted.purpose}"
        return Finding(wanted.package, "ok", found, wanted.install)
    return Finding(wanted.package, "ok", version)


def slurm(which: Callable[[str], str | None]) -> Finding:
    """Slurm's commands, and the launcher where they are there.

    Args:
        which: finds a command; `shutil.which`.
    """
    found = [command for command in _SLURM if which(command)]
    if not found:
        return Finding("slurm", "ok", "none here")
    missing = [command for command in _SLURM if command not in found]
    if missing:
        said = f"{', '.join(found)}, but not {', '.join(missing)}"
        return Finding("slurm", "warning", said, "load the cluster's Slurm module")
    launcher = versions(["hydra-submitit-launcher"])["hydra-submitit-launcher"]
    if launcher is None:
        said = f"{', '.join(found)}, but no launcher"
        return Finding("slurm", "warning", said, "pip install 'olmo-stages[slurm]'")
    return Finding("slurm", "ok", ", ".join(found))


def same_weights(outputs: Path) -> list[Finding]:
    """Stages or revisions that have the same weights, in the hub's cache and in the results."""
    from huggingface_hub import constants

    from olmo_stages.revisions import twins

    cache = Path(constants.HF_HUB_CACHE)
    found = [*twins.in_cache(cache), *twins.in_results(outputs, cache)]
    remedy = "look at the model cards; leave one of them out"
    return [Finding("same weights", "warning", str(it), remedy) for it in found]


def _gpu(index: int) -> Finding:
    import torch

    name = torch.cuda.get_device_name(index)
    try:
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:  # another process holds all of it, or the mode forbids a second
        return Finding(f"gpu {index}", "warning", f"{name}: {error}", "see nvidia-smi")
    said = f"{name}, {total / _GB:.0f} GB, {free / _GB:.0f} GB free"
    return Finding(f"gpu {index}", "ok", said)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
