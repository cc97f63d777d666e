"""Commands of Slurm that answer what a test says."""

import os
import shlex
from pathlib import Path

import pytest

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "srun")
# Of bash alone: the test machine may have the real commands where other programs are.
_SCRIPT = """#!/bin/bash
d=${0%/*}; n=${0##*/}
echo "$*" >> "$d/$n.calls"
if [ "$n" = sbatch ]; then echo "$(<"$1")" > "$d/script"; export -p > "$d/env"; fi
for k in out err rc; do [ -f "$d/$n.$k" ] || : > "$d/$n.$k"; done
if [ "$n" = squeue ] && [ -f "$d/queue" ]; then
    while IFS='|' read -r i T N j r k; do
        line=$*; line=${line#*--format=}; line=${line%% --*}
        for it in i T N j r k; do line=${line//%$it/${!it}}; done
        line=${line//%A/${i%_*}}; echo "${line//%F/${i%_*}}"
    done < "$d/queue" > "$d/squeue.out"
fi
printf %s "$(<"$d/$n.err")" >&2
printf %s "$(<"$d/$n.out")"
rc=$(<"$d/$n.rc"); exit "${rc:-0}"
"""


class FakeSlurm:
    """Commands of Slurm.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COMMANDS:
            (folder / name).write_text(_SCRIPT)
            (folder / name).chmod(0o755)

    def answer(self, command, out="", err="", rc=0):
        """From now on a command answers this."""
        for kind, text in (("out", out), ("err", err), ("rc", str(rc))):
            (self.folder / f"{command}.{kind}").write_text(text)

    def queue(self, *rows):
        """From now on squeue knows these jobs: `ID|STATE|NODE|NAME|REASON|COMMENT`."""
        (self.folder / "queue").write_text("".join(f"{it}\n" for it in rows))

    def remove(self, command):
        (self.folder / command).unlink()

    def calls(self, command):
        """The words a command was given, a line for each time."""
        path = self.folder / f"{command}.calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def script(self):
        return (self.folder / "script").read_text()

    @property
    def environment(self):
        words = shlex.split((self.folder / "env").read_text())
        return dict(word.partition("=")[::2] for word in words if "=" in word)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in [it for it in os.environ if it.startswith(("SLURM", "SBATCH"))]:
        monkeypatch.delenv(name)
    return FakeSlurm(folder)
