"""Paths stay below their root, and uploads leave nothing behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.errors import ConfigurationError, DomainError, FailedPreconditionError, InvalidRequestError, NotFoundError
from services.patching.slides.sources import PREFIX, SlideDigest, Upload, below, check_uploads, remove_left_over, sha256_of_slide


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "slides"
    (made / "a").mkdir(parents=True)
    (made / "a" / "one.tif").write_bytes(b"x")
    (tmp_path / "secret.tif").write_bytes(b"x")
    (made / "link.tif").symlink_to(tmp_path / "secret.tif")
    (made / "inner.tif").symlink_to(made / "a" / "one.tif")
    (made / "loop").symlink_to(made / "loop")
    return made


def test_what_lies_below_is_found(root: Path) -> None:
    assert below(root, "a/one.tif") == (root / "a" / "one.tif").resolve()
    assert below(root, "a") == (root / "a").resolve()
    assert below(root, "inner.tif") == (root / "a" / "one.tif").resolve()
    assert below(root, "a/../a/one.tif") == (root / "a" / "one.tif").resolve()


@pytest.mark.parametrize(
    "path", ["", ".", "..", "../secret.tif", "a/../../secret.tif", "/etc/passwd", "link.tif", "loop", "a\\one.tif", "a\0b", "x" * 5000]
)
def test_what_lies_outside_is_refused_whether_it_is_there_or_not(root: Path, path: str) -> None:
    with pytest.raises(DomainError) as caught:
        below(root, path)
    assert caught.value.reason == "SLIDE_PATH_INVALID"


def test_what_is_not_there(root: Path) -> None:
    with pytest.raises(DomainError) as caught:
        below(root, "a/none.tif")
    assert caught.value.reason == "SLIDE_NOT_FOUND"


def test_without_a_root_nothing_is_read_by_path() -> None:
    with pytest.raises(FailedPreconditionError):
        below(None, "a")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30))
def test_any_text_stays_below_or_is_refused(root: Path, text: str) -> None:
    with suppress(InvalidRequestError, NotFoundError):
        assert below(root, text).is_relative_to(root.resolve())


def test_an_upload_is_there_until_its_block_ends(tmp_path: Path) -> None:
    with Upload(tmp_path / "new", 6, 100) as upload:
        upload.write(b"abc")
        upload.write(b"def")
        assert upload.finish() == hashlib.sha256(b"abcdef").hexdigest()
        assert upload.path.read_bytes() == b"abcdef"
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(("announced", "reason"), [(0, "UPLOAD_BYTES_OUT_OF_RANGE"), (-5, "UPLOAD_BYTES_OUT_OF_RANGE"), (101, "SLIDE_TOO_LARGE")])
def test_sizes_that_are_refused_leave_no_file(tmp_path: Path, announced: int, reason: str) -> None:
    with pytest.raises(DomainError) as caught:
        Upload(tmp_path, announced, 100)
    assert caught.value.reason == reason
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_overload(tmp_path: Path) -> None:
    with pytest.raises(DomainError) as caught:
        Upload(tmp_path, 2**60, 2**61)
    assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "DISK_FULL")


def send(folder: Path, chunks: list[bytes]) -> None:
    with Upload(folder, 6, 100) as upload:
        for chunk in chunks:
            upload.write(chunk)
        upload.finish()


@pytest.mark.parametrize(("chunks", "reason"), [([b"abc"], "UPLOAD_INCOMPLETE"), ([b"abcd", b"efg"], "UPLOAD_TOO_LONG")])
def test_more_or_less_than_announced(tmp_path: Path, chunks: list[bytes], reason: str) -> None:
    with pytest.raises(DomainError) as caught:
        send(tmp_path, chunks)
    assert caught.value.reason == reason
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_goes_and_what_others_use_stays(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for owner in (gone.pid, os.getpid(), os.getppid()):
        (tmp_path / f"{PREFIX}{owner}-x").write_bytes(b"x")
    (tmp_path / "other").write_bytes(b"x")
    assert remove_left_over(tmp_path) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["other", f"{PREFIX}{os.getppid()}-x"])


def test_the_digest_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    expected = hashlib.sha256((hashlib.sha256(b"1").hexdigest() + hashlib.sha256(b"2").hexdigest()).encode()).hexdigest()
    assert sha256_of_slide(tmp_path) == expected
    assert sha256_of_slide(tmp_path / "a") == hashlib.sha256(b"1").hexdigest()


def test_a_disk_that_fills_up_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    """The limit on the size of a file stands for the full disk: what is written comes back as an OSError, also when the file is closed."""
    script = f"""
import resource, signal
from pathlib import Path
from services.common.errors import OverloadedError
from services.patching.slides.sources import Upload
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with Upload(Path({str(tmp_path)!r}), 3 << 20, 8 << 20) as upload:
        for _ in range(3 << 10):
            upload.write(bytes(1 << 10))
        upload.finish()
except OverloadedError as error:
    print(error.reason)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("DISK_FULL\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_digest_is_made_in_steps_of_bounded_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.patching.slides.sources._HASHED_AT_ONCE", 100)
    monkeypatch.setattr("services.patching.slides.sources._READ_AT_ONCE", 50)
    for size in (0, 99, 100, 101, 1000):
        content = bytes(range(256)) * 4
        (tmp_path / "slide").write_bytes(content[:size])
        digest, steps = SlideDigest(tmp_path / "slide"), 1
        while digest.step():
            steps += 1
        assert digest.hexdigest() == hashlib.sha256(content[:size]).hexdigest()
        assert steps == size // 100 + 1


def test_the_folder_of_uploads_is_tried_before_the_first_upload(tmp_path: Path) -> None:
    check_uploads(tmp_path / "new" / "uploads")
    assert list((tmp_path / "new" / "uploads").iterdir()) == []
    (tmp_path / "file").write_bytes(b"x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/uploads")):
        with pytest.raises(ConfigurationError) as caught:
            check_uploads(folder)
        assert caught.value.reason == "SLIDE_UPLOADS_UNWRITABLE"
        assert "DL4ALL_PATCHING_SLIDE_UPLOADS" in caught.value.message
