"""How long a command takes before and besides its work: CPU seconds of whole processes, in turns.

`python run.py --help` against an empty Hydra app; a probe job of the miniature family that is
finished, and one whose activations are in the store but whose numbers are still to be computed,
against `import torch`. Bytecode caches are warm on both sides. Run by `make bench`; trains the
miniature family once where it is not there.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sides import Row, show

ROOT = Path(__file__).resolve().parent.parent
EMPTY = """
import hydra
@hydra.main(version_base=None, config_path=None)
def main(config): pass
main()
"""


class Sides:
    """Commands of the two sides, in a folder of their own."""

    def __init__(self, folder):
        self.outputs = folder / "outputs"
        (folder / "empty.py").write_text(EMPTY)
        self.environment = os.environ | {
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
            "HYDRA_FULL_ERROR": "1",
        }
        # Set where caches of bytecode are unwanted; with it, every start would compile.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        job = ["run.py", "model=think_sft", "analysis=probe", "tracking=none"]
        self.commands = {
            "help": ["run.py", "--help"],
            "empty app": [str(folder / "empty.py"), "--help"],
            "job": [*job, f"outputs={self.outputs}"],
            "import torch": ["-c", "import torch"],
        }

    def run(self, name):
        """CPU and wall seconds of one process and its children."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, *self.commands[name]],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"
        used = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
        return used, wall

    def forget(self):
        """Remove the results, not the activations."""
        shutil.rmtree(self.outputs, ignore_errors=True)

    def marks(self):
        """When each result was finished, by its folder."""
        return {it: it.stat().st_mtime_ns for it in self.outputs.glob("*/*/*/result.json")}


def compared(sides, ours, other, rounds, before=lambda: None):
    """CPU and wall seconds of both, a pair a round."""
    found = {ours: [], other: []}
    for number in range(rounds):
        for name in (ours, other)[:: -1 if number % 2 else 1]:
            if name == ours:
                before()
            found[name].append(sides.run(name))
    return [tuple(zip(*found[name], strict=True)) for name in (ours, other)]


def rows(sides, rounds):
    """The three comparisons, in CPU seconds."""
    for name in sides.commands:  # compiles what is not compiled, computes what is not there
        sides.run(name)
    finished = sides.marks()
    assert len(finished) == 1, f"not one result: {list(finished)}"
    yield row(
        "run.py --help",
        "an empty Hydra app",
        "<= 3.0",
        compared(sides, "help", "empty app", rounds),
    )
    yield row(
        "a finished probe job",
        "import torch",
        "<= 2.0",
        compared(sides, "job", "import torch", rounds),
    )
    assert sides.marks() == finished, "the finished job was done again"
    yield row(
        "a probe job, activations in the store",
        "import torch",
        "<= 2.0",
        compared(sides, "job", "import torch", rounds, sides.forget),
    )
    again = sides.marks()
    assert list(again) == list(finished), "the job is another one"
    assert again != finished, "the job was not done again"


def row(what, against, target, seconds):
    """CPU seconds; wall seconds beside them."""
    (used, wall), (other_used, other_wall) = seconds
    walls = " and ".join(f"{statistics.median(it):.2f}" for it in (wall, other_wall))
    note = f"CPU seconds of the process and its children; wall {walls} s"
    return Row(f"{what}, size=tiny", against, used, other_used, target, note=note)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        show([*rows(Sides(Path(folder)), 1 if asked.quick else asked.rounds)])


if __name__ == "__main__":
    main()
