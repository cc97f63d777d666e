"""Copies of results for others to browse. The files on disk come first; nothing may cost them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from olmo_stages.records import Job
from olmo_stages.types import Result


@runtime_checkable
class Tracker(Protocol):
    """Something that is told about jobs."""

    def running(
        self, job: Job, *, group: str, config: Mapping[str, Any]
    ) -> AbstractContextManager[None]:
        """Show that a job is at work until the block ends; its result is recorded afterwards."""
        ...

    def record(
        self, job: Job, result: Result, folder: Path, *, group: str, config: Mapping[str, Any]
    ) -> str | None:
        """Record a job whose result is in `folder`; return a line for people, or None."""
        ...


@dataclass(frozen=True)
class NoTracking:
    """Files only."""

    def running(
        self, job: Job, *, group: str, config: Mapping[str, Any]
    ) -> AbstractContextManager[None]:
        """Do nothing."""
        del job, group, config
        return nullcontext()

    def record(
        self, job: Job, result: Result, folder: Path, *, group: str, config: Mapping[str, Any]
    ) -> str | None:
        """Do nothing."""
        del job, result, folder, group, config
