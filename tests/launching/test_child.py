"""The output of a job's process."""

import io
import os

from olmo_stages.launching.output import Tolerant


def test_a_log_on_a_full_disk_is_no_error_of_its_job():
    full = os.open("/dev/full", os.O_WRONLY)
    with io.TextIOWrapper(io.BufferedWriter(Tolerant(full, "w")), line_buffering=True) as log:
        log.write("a line\n" * 10_000)
        log.flush()


def test_a_log_holds_what_is_written(tmp_path):
    path = tmp_path / "log"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    with io.TextIOWrapper(io.BufferedWriter(Tolerant(file, "w")), line_buffering=True) as log:
        log.write("a line\n")
        assert path.read_text() == "a line\n"
