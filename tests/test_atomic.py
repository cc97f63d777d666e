import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from olmo_stages.atomic import disk_trouble, safe_name, write_file, write_folder
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


@pytest.mark.parametrize(("number", "is_full"), [(errno.ENOSPC, True), (errno.ENOENT, False)])
def test_only_a_full_disk_is_said_to_need_space(number, is_full):
    said = disk_trouble(Path("there"), OSError(number, os.strerror(number)))
    assert ("free some space" in said) is is_full
    assert said.endswith("choose another folder")
