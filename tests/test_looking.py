"""Whoever only looks makes nothing."""

import pytest

from olmo_stages import atomic
from olmo_stages.errors import NotHere
from olmo_stages.looking import is_looking, looking, make


def test_nothing_is_made_while_somebody_only_looks():
    make("a model")
    with looking():
        assert is_looking()
        with pytest.raises(NotHere, match="a model: not here yet"):
            make("a model")
    assert not is_looking()
    make("a model")


def test_files_and_folders_are_written_by_those_who_do_not_only_look(tmp_path):
    with looking():
        with pytest.raises(NotHere):
            atomic.write_file(tmp_path / "file", b"x")
        with pytest.raises(NotHere):
            atomic.write_folder(tmp_path / "folder", {"file": b"x"}, ())
    assert not list(tmp_path.iterdir())
    atomic.write_file(tmp_path / "file", b"x")
    atomic.write_folder(tmp_path / "folder", {"file": b"x"}, ())
    assert {it.name for it in tmp_path.iterdir()} == {"file", "folder"}


def test_a_look_does_not_put_back_what_a_killed_writer_moved_aside(tmp_path):
    old = tmp_path / ".folder.old-host-1-abc"
    old.mkdir()
    with looking():
        atomic.restore_folder(tmp_path / "folder")
    assert old.is_dir()
    atomic.restore_folder(tmp_path / "folder")
    assert not old.exists()
    assert (tmp_path / "folder").is_dir()
