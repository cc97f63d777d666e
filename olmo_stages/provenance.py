"""What a number was made from and with: versions, commit, machine, times, and no secrets."""

import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_PACKAGES = (
    "olmo-stages",
    "torch",
    "transformers",
    "accelerate",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "datasets",
    "hydra-core",
    "plotly",
    "wandb",
)
_HIDDEN = "***"
# On the command line too much is hidden rather than too little. In the configuration, `eos_token`
# and `label_key` are settings that a reader needs.
_SECRET_ARGUMENT = re.compile(
    r"(key|token|pass|password|passwd|secret|credentials?)$", re.IGNORECASE
)
_SECRET_SETTING = re.compile(
    r"^(.*_)?(((api|access|auth|secret|private)_?)key|(pass|password|passwd|secret|credentials?))$"
    r"|^((api|access|auth|hub|hf|bearer|refresh)_?)?token$|^key$",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(r"KEY|TOKEN|PASS|SECRET|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 8
_USER_INFO = re.compile(r"(?<=://)[^/\s@]+@")
_FLAG = re.compile(r"^[-+~]*([A-Za-z0-9_./@-]+)=(.*)$", re.DOTALL)
_GIT_SECONDS = 5.0


@dataclass(frozen=True)
class Times:
    """When a job started and ended, in UTC."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """Wall time."""
        return (self.end - self.start).total_seconds()


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


def provenance(
    *,
    job: Mapping[str, Any],
    config: Mapping[str, Any],
    times: Times,
    seed: int,
    data_digest: str,
    model_digests: Mapping[str, str],
) -> dict[str, Any]:
    """Collect what is needed to make a result again, as plain JSON data.

    Reads no environment variable into the record; the values of those that look like secrets,
    and arguments and settings that are named like one, are replaced by `***`.

    Args:
        job: description of the job, `Job.describe()`.
        config: the full resolved configuration.
        times: start and end.
        seed: seed of every random choice.
        data_digest: identity of the data's content.
        model_digests: identity of the weights by stage label.

    Returns:
        A mapping ready for `records.write`.
    """
    return redact({
        "job": dict(job),
        "config": dict(config),
        "argv": redact_arguments(sys.argv),
        "git": git_state(Path(__file__).resolve().parent),
        "packages": versions(_PACKAGES),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "start": times.start.isoformat(timespec="seconds"),
        "end": times.end.isoformat(timespec="seconds"),
        "seconds": round(times.seconds, 3),
        "seed": seed,
        "data_digest": data_digest,
        "model_digests": dict(model_digests),
    })


def git_state(folder: Path) -> dict[str, str | bool] | None:
    """Commit and dirty flag of the checkout that holds `folder`.

    Returns:
        None where there is no git, or where git does not track the folder (an installed wheel).
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        if not _git(folder, "ls-files", "--", "."):
            return None
        dirty = bool(_git(folder, "status", "--porcelain", "--", ":/"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty}


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Return installed versions by package name; None = not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def redact(value: Any) -> Any:  # noqa: ANN401  (JSON data of any depth)
    """Return a copy of JSON-like data without secrets.

    Hidden are texts under a key named like a secret (`api_key`, `token`, `password`; not
    `max_tokens`), the values of environment variables named like one, wherever they occur, and
    user names and passwords in addresses.
    """
    return _redact(value, _secrets())


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Return command-line arguments without the values that are named like secrets."""
    secrets = _secrets()
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        match = _FLAG.match(argument)
        if hide_next:
            shown.append(_HIDDEN)
        elif match and _SECRET_ARGUMENT.search(match[1]):
            shown.append(argument[: match.start(2)] + _HIDDEN)
        else:
            shown.append(_redact(argument, secrets))
        flag = argument.startswith("--") and not match
        hide_next = flag and _SECRET_ARGUMENT.search(argument) is not None
    return shown


def _redact(value: Any, secrets: tuple[str, ...]) -> Any:  # noqa: ANN401  (JSON data)
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, _HIDDEN)
        return _USER_INFO.sub(f"{_HIDDEN}@", value)
    if isinstance(value, Mapping):
        return {
            _redact(key, secrets): _HIDDEN
            if isinstance(item, str) and item and _SECRET_SETTING.match(str(key))
            else _redact(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact(item, secrets) for item in value]
    return value


def _secrets() -> tuple[str, ...]:
    # Longest first, so that a secret which contains another is hidden whole. Paths are no secrets
    # (SSH_KEY=~/.ssh/id), and short values would blot out ordinary words.
    values = {
        value
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.search(name)
        and len(value) >= _SHORTEST_SECRET
        and value[0] not in "/~."
    }
    return tuple(sorted(values, key=len, reverse=True))


def _git(folder: Path, *arguments: str) -> str:
    # GIT_OPTIONAL_LOCKS: `status` must not take the index lock under a user's own git command.
    completed = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=_GIT_SECONDS,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    )
    return completed.stdout.strip()
