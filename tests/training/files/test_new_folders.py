"""Tests of folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.errors import DatasetError
from training.files.new_folders import new_folder


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a" / "out") as folder:
        (folder / "file").write_text("x", encoding="utf-8")
        assert not (tmp_path / "a" / "out").exists()
    assert [p.name for p in (tmp_path / "a" / "out").iterdir()] == ["file"]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["out"]


@pytest.mark.parametrize("fault", [OSError, KeyboardInterrupt])
def test_nothing_stays_of_one_that_is_not(fault: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "left").touch()

    def write() -> None:
        with new_folder(tmp_path / "out") as folder:
            assert not list(folder.iterdir()), "what a killed process left is gone"
            raise fault

    with pytest.raises(fault):
        write()
    assert not list(tmp_path.iterdir())


def test_one_that_is_there_is_kept(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="already there"), new_folder(tmp_path):
        pytest.fail("it began")
