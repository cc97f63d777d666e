import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors import SafetensorError

from olmo_stages.atomic import (
    OUTPUTS,
    disk_trouble,
    refusal,
    restore_folder,
    safe_name,
    scratch,
    write_file,
    write_folder,
    writing,
)
from olmo_stages.errors import StoreError


@pytest.mark.parametrize("text", ["think_sft@step_20", "truth", "a.b-c=d+e"])
def test_a_safe_name_is_kept(text):
    assert safe_name(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", ".hidden", "a/b", "a b", "a\0b", "_x_", "é"])
def test_an_unsafe_name_becomes_a_safe_one_of_its_own(text):
    name = safe_name(text)
    assert name != text
    assert safe_name(name) == name
    assert name == safe_name(text)


def test_long_names_are_cut_and_stay_apart():
    one, other = safe_name("x" * 300 + "1"), safe_name("x" * 300 + "2")
    assert len(one) <= 64
    assert one != other


def test_a_file_is_replaced_whole_and_nothing_is_left(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write_file(tmp_path / "file" / "a", b"")


def test_many_writers_of_one_folder_leave_one_whole_folder(tmp_path):
    folder = tmp_path / "result"

    def fill(number):
        text = f"{number}".encode()
        write_folder(folder, {"a": text, "inner/b": text}, own={"a", "inner"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fill, range(80)))
    assert (folder / "a").read_bytes() == (folder / "inner" / "b").read_bytes()
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space or "),
        (errno.EDQUOT, "free some of your quota or "),
        (errno.EROFS, "make it writable or "),
        (errno.EACCES, "make it writable or "),
        (errno.EFBIG, "raise the limit on the size of a file (ulimit -f) or "),
        (errno.EIO, ""),
    ],
)
def test_each_trouble_has_its_remedy(number, remedy):
    said = disk_trouble(Path("there"), OSError(number, os.strerror(number)), OUTPUTS)
    other = "choose another folder with outputs=DIR"
    assert said == f"cannot write there: {os.strerror(number)}; {remedy}{other}"


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (SafetensorError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (SafetensorError('IoError(Os { code: 122, kind: Other, message: "" })'), errno.EDQUOT),
        (RuntimeError("unable to mmap 12 bytes (errno: 28)"), errno.ENOSPC),
        (OSError(errno.EROFS, "read-only"), errno.EROFS),
    ],
)
def test_what_a_library_says_in_its_own_words_is_told_like_the_rest(error, number):
    with pytest.raises(StoreError, match="cannot write there") as caught, writing(Path("there")):
        raise error
    said = refusal(error)
    assert said is not None
    assert said.errno == number
    assert str(caught.value) == disk_trouble(Path("there"), said)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ: 28"), KeyError("x")])
def test_what_is_not_the_disks_fault_is_told_as_it_is(error):
    with pytest.raises(type(error)) as caught, writing(Path("there")):
        raise error
    assert caught.value is error


SYSTEM_CALLS = ["mkdir", "open", "write", "fsync", "close", "replace"]


def refusing(monkeypatch, call, number):
    """Let the system refuse one of the calls that write a file."""

    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    if call in {"mkdir", "replace"}:
        monkeypatch.setattr(Path, call, refuse)
    elif call == "fsync":
        monkeypatch.setattr(os, call, refuse)
    else:
        monkeypatch.setattr(Path, "open", refuse if call == "open" else lambda *_: Refusing(call))


class Refusing:
    """A file that the disk refuses when it is written, or only when it is closed."""

    def __init__(self, call):
        self.call = call

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.call == "close":  # as network file systems do
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def write(self, _):
        if self.call == "write":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def flush(self):
        pass

    def fileno(self):
        return os.open(os.devnull, os.O_RDONLY)


@pytest.mark.parametrize("call", SYSTEM_CALLS)
def test_whichever_call_is_refused_the_older_file_stays(tmp_path, monkeypatch, call):
    path = tmp_path / "a.json"
    write_file(path, b"one")
    refusing(monkeypatch, call, errno.EDQUOT)
    with pytest.raises(StoreError, match=r"a\.json: Disk quota exceeded; free some of your quota"):
        write_file(path, b"two")
    monkeypatch.undo()
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", [*SYSTEM_CALLS, "rename"])
def test_whichever_call_is_refused_the_older_folder_stays(tmp_path, monkeypatch, call):
    folder = tmp_path / "result"
    write_folder(folder, {"a": b"one", "inner/b": b"one"}, own={"a", "inner"})
    (folder / "foreign").touch()
    if call == "rename":
        real = Path.rename

        def rename(path, target):
            # The older folder has stepped aside, and the disk has no block left for a new name.
            if ".tmp-" in path.name and not folder.exists():
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
            return real(path, target)

        monkeypatch.setattr(Path, call, rename)
    else:
        refusing(monkeypatch, call, errno.EDQUOT)
    if call == "replace":
        monkeypatch.setattr(Path, "rename", Path.replace)
    with pytest.raises(StoreError, match=r"result: Disk quota exceeded; free some of your quota"):
        write_folder(folder, {"a": b"two", "inner/b": b"two"}, own={"a", "inner"})
    monkeypatch.undo()
    assert (folder / "a").read_bytes() == (folder / "inner" / "b").read_bytes() == b"one"
    assert (folder / "foreign").exists()
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_nobody_may_look_into_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "exists", refuse)
    restore_folder(tmp_path / "result")


def test_scratch_is_gone_afterwards(tmp_path):
    with scratch(tmp_path / "root") as folder:
        (folder / "file").touch()
    assert list((tmp_path / "root").iterdir()) == []


def test_where_nothing_temporary_can_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "file"))
    said = r"file: .*; choose another folder with TMPDIR=DIR$"
    with pytest.raises(StoreError, match=said), scratch():
        pass
