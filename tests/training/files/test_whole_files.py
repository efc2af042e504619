"""Files that appear whole or not at all, although several processes write them or are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.files.whole_files import write_json, write_whole


def test_what_was_there_stays_until_the_new_content_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made" / "file.bin"
    write_whole(path, b"before")

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_running_process_writes_is_left_alone_and_what_a_killed_one_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    killed = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    running, dead = (tmp_path / f".file.bin.{pid}.part" for pid in (os.getppid(), int(killed.stdout)))
    for part in (running, dead):
        part.write_bytes(b"half")
    write_whole(path, b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, running])


def test_json_is_read_by_people_too(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Blutausstrich, gefärbt", "count": 1})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "Blutausstrich, gefärbt", "count": 1}
    assert "gefärbt" in text
