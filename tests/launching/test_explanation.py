import errno
import os

import pytest

from olmo_stages.launching.explanation import explain


def refused(number, name=None):
    return OSError(number, os.strerror(number), name)


def raised_after(first, then):
    try:
        try:
            raise first
        except OSError:
            raise then  # noqa: B904  (as `Path.mkdir` does)
    except OSError as error:
        return error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_made_is_told_and_not_what_was_missing_before(number):
    error = raised_after(
        FileNotFoundError(2, "No such file or directory", "a/b"), refused(number, "a")
    )
    assert explain(error).startswith(f"cannot write a: {os.strerror(number)}; ")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_where_the_system_names_no_file(number):
    assert explain(refused(number)).startswith(f"cannot write a file: {os.strerror(number)}; ")


def test_what_is_missing_is_told_as_it_is():
    missing = FileNotFoundError(2, "No such file or directory", "a/b")
    assert explain(missing) == "FileNotFoundError: [Errno 2] No such file or directory: 'a/b'"
