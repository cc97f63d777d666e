"""What is printed is lost where it cannot be printed, and nothing else is."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from olmo_stages import launching
from olmo_stages.launching.output import Tolerant

FULL = Path("/dev/full")

PRINTS = """
import sys
from olmo_stages.launching.output import tolerate
tolerant = sys.argv[1] == "tolerant"
if tolerant:
    tolerate()
    tolerate()
for _ in range(1000):
    print("x" * 100)
    print("y" * 100, file=sys.stderr)
sys.stdout.flush()
sys.exit(7)
"""


def ran(how, stdout, stderr=subprocess.DEVNULL):
    return subprocess.run(
        [sys.executable, "-c", PRINTS, how],
        stdout=stdout,
        stderr=stderr,
        cwd=Path(launching.__file__).parents[2],
        check=False,
    )


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, a disk that is always full")
@pytest.mark.parametrize(("how", "code"), [("tolerant", 7), ("as it is", 1)])
def test_a_full_disk_ends_nothing(how, code):
    with FULL.open("w") as full:
        assert ran(how, full).returncode == code
        if how == "tolerant":
            assert ran(how, full, full).returncode == code


@pytest.mark.parametrize(("how", "code"), [("tolerant", 7), ("as it is", 1)])
def test_a_reader_that_is_gone_ends_nothing(how, code):
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(launching.__file__).parents[2],
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == code


def test_what_can_be_printed_is_printed_whole():
    done = ran("tolerant", subprocess.PIPE, subprocess.PIPE)
    assert done.stdout.splitlines() == [b"x" * 100] * 1000
    assert done.stderr.splitlines() == [b"y" * 100] * 1000


def test_a_stream_without_a_descriptor_is_left_alone(monkeypatch):
    from olmo_stages.launching.output import tolerate

    other = io.StringIO()
    monkeypatch.setattr(sys, "stdout", other)
    tolerate()
    assert sys.stdout is other


def test_a_tolerant_stream_writes_as_others_do(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as file, Tolerant(file.fileno(), "w", closefd=False) as stream:
        assert stream.write(b"abc") == 3
    assert path.read_bytes() == b"abc"
