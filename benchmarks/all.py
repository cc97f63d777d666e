"""`make bench`: every benchmark, one after another, and one table of ratios.

    python benchmarks/all.py [--quick] [--only extraction,probe_fits] [--readme]

Each runs in a process of its own, on an otherwise idle machine. Figures are medians, with the range
of the rounds in brackets; ratios are taken round by round. One that fails, or has not met a target,
is named and makes the exit code 1. With --readme the table replaces the one in README.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from sides import FILE, HEADS, Row, table

FOLDER = Path(__file__).parent
SCRIPTS = (
    "extraction",
    "streamed",
    "probe_fits",
    "cka_map",
    "cosine_null",
    "start_up",
    "load_memory",
    "report_page",
    "gpu",
)
QUICK = {"cka_map": "--small", "cosine_null": "--small", "report_page": "--small"}
PACKAGES = ("torch", "transformers", "scikit-learn", "accelerate", "nnsight", "transformer-lens")
START, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="its figures mean nothing")
    parser.add_argument("--only", default=",".join(SCRIPTS), help="names, with commas")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument("--rows", type=Path, help="file of rows to add to, e.g. of an earlier part")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = (args.rows or Path(folder) / "rows").absolute()
        names = [it for it in args.only.split(",") if it]
        failed = [it for it in names if not run(it, file, quick=args.quick)]
        lines = file.read_text().splitlines() if file.exists() else []
    rows = [read(line) for line in lines]
    console = Console(width=170)
    console.print(machine())
    console.print(table(rows))
    if args.readme:
        path = FOLDER.parent / "README.md"
        before, rest = path.read_text().split(START)
        text = f"{START}\n{machine()}\n\n{markdown(rows)}\n{END}"
        path.write_text(before + text + rest.split(END)[1])
    missed = [f"{row.what}, {row.against}" for row in rows if row.met == "NO"]
    for what, names in (("failed", failed), ("target not met", missed)):
        for name in names:
            console.print(f"{what}: {name}")
    sys.exit(bool(failed or missed))


def run(name, file, *, quick):
    """Run one script; whether it ended well."""
    command = [sys.executable, str(FOLDER / f"{name}.py")]
    command += [QUICK.get(name, "--quick")] if quick else []
    print(f"\n{name}", flush=True)
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, FILE: str(file)}
    return subprocess.run(command, check=False, env=environment).returncode == 0


def read(line):
    it = json.loads(line)
    return Row(**it | {side: tuple(it[side]) for side in ("ours", "other")})


def machine():
    """What it ran on, one line."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(": ")[2]
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return f"{len(os.sched_getaffinity(0))} cores of {cpu}, {pages / 1e9:.0f} GB; " + ", ".join(
        found
    )


def markdown(rows):
    """The table for README.md, notes below it."""
    lines = [" | ".join(HEADS), " | ".join("---" for _ in HEADS)]
    notes = []
    for row in rows:
        cells = row.cells()
        if row.note:
            notes.append(row.note)
            cells[0] += f" [{len(notes)}]"
        lines.append(" | ".join(cells))
    told = [f"[{number}] {note}" for number, note in enumerate(notes, start=1)]
    return "\n".join(f"| {line} |" for line in lines) + "".join(f"\n\n{it}." for it in told)


if __name__ == "__main__":
    main()
