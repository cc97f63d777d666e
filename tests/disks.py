"""Small disks for tests: real ones, which only root can mount."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of its own at a folder; the test is skipped where none can be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a disk, and not in every container")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def read_only_later(place: Path, size: str = "2m") -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder, and what makes it one that can only be read; for root, on a disk of its own."""
    if os.geteuid() == 0:
        with small_disk(place, size):
            yield place, lambda: remount(place, "ro")
        return
    place.mkdir(parents=True)

    def allow(writing: bool) -> None:
        for path in (place, *place.rglob("*")):
            mode = path.stat().st_mode
            path.chmod(mode | 0o200 if writing else mode & ~0o222)

    yield place, lambda: allow(writing=False)
    allow(writing=True)


def remount(place: Path, options: str) -> None:
    """Change a mounted disk, to `ro` say, or `rw,size=1m`."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)
