"""Images in a person's folders: which are found, what is passed over, and the names of pictures that are written for them."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from clients.cli.images import distinct_names, expand, refuse_overwriting
from clients.cli.running import check_readable
from dl4all_client import ServiceError
from services.common.image_files import IMAGE_SUFFIXES, is_left_over, passed_over_words, shown, shown_text

FOLDER = Path("out")


def _files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def _names(paths: list[Path], folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in paths]


def test_folders_behind_links_are_looked_through_and_each_file_is_found_once(tmp_path: Path) -> None:
    _files(tmp_path, "archive/p1/a.jpg", "archive/p1/b.png", "study/c.tif")
    (tmp_path / "study" / "patient1").symlink_to(tmp_path / "archive" / "p1", target_is_directory=True)
    (tmp_path / "study" / "patient1_again").symlink_to(tmp_path / "archive" / "p1", target_is_directory=True)
    (tmp_path / "study" / "d.tif").symlink_to("c.tif")
    found = expand([tmp_path / "study"])
    assert len(found) == len({path.resolve() for path in found}) == 3
    assert {path.name for path in found} == {"a.jpg", "b.png", "c.tif"}


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    _files(tmp_path, "a/one.jpg", "a/b/two.jpg")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "here").symlink_to(".", target_is_directory=True)
    assert _names(expand([tmp_path / "a"]), tmp_path / "a") == ["b/two.jpg", "one.jpg"]


def test_a_folder_that_holds_only_a_link_to_itself_holds_no_image(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(".", target_is_directory=True)
    with pytest.raises(ServiceError, match="NO_IMAGES"):
        check_readable(expand([tmp_path])[0])


def test_folders_that_are_named_twice_are_answered_once(tmp_path: Path) -> None:
    _files(tmp_path, "a/one.jpg", "a/b/two.jpg")
    (tmp_path / "link").symlink_to("a", target_is_directory=True)
    found = expand([tmp_path / "a", tmp_path / "a" / "b", tmp_path / "link", tmp_path / "a" / "one.jpg"])
    assert _names(found, tmp_path) == ["a/b/two.jpg", "a/one.jpg"]


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.JPG", "a.TIF", "a.JfIf", "b.c.Jpeg", "a.BMP", "a.jif"])
def test_every_suffix_of_what_is_read_is_found(tmp_path: Path, name: str) -> None:
    _files(tmp_path, name)
    assert _names(expand([tmp_path]), tmp_path) == [name]


def test_what_systems_leave_and_what_is_no_image_is_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _files(tmp_path, "a.jpg", "._a.jpg", "sub/._b.jpg", "sub/b.jpg", "._c.tif", "Thumbs.db", ".DS_Store", "x.webp", "y.WEBP", "desktop.ini", "notes")
    _files(tmp_path, "__MACOSX/sub/._b.jpg", ".thumbnails/a.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg")
    assert _names(expand([tmp_path]), tmp_path) == ["a.jpg", "sub/b.jpg"]
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("passed over: 3 hidden files (._*), 2 .webp, ")
    for words in ("1 hidden file,", "1 hidden folder", "Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir", "1 file without a suffix"):
        assert words in f"{line},"


def test_a_hidden_file_or_folder_that_is_named_is_read(tmp_path: Path) -> None:
    _files(tmp_path, ".cache/a.jpg", "._b.jpg")
    assert expand([tmp_path / ".cache", tmp_path / "._b.jpg"]) == [tmp_path / ".cache" / "a.jpg", tmp_path / "._b.jpg"]


@pytest.mark.parametrize("names", [[], ["a.webp", "b.avif", "._c.jpg", "Thumbs.db"], [".git/a.jpg"]], ids=["empty", "others", "hidden folder"])
def test_a_folder_without_images_is_kept_and_refused_with_what_is_there(tmp_path: Path, names: list[str]) -> None:
    _files(tmp_path, *names)
    (kept,) = expand([tmp_path])
    with pytest.raises(ServiceError) as caught:
        check_readable(kept)
    assert caught.value.reason == "NO_IMAGES"
    assert ".jpg, .jpeg, .jpe, .jfif" in caught.value.message
    expected = (
        ["it is empty"] if not names else ["1 hidden folder"] if ".git/a.jpg" in names else ["1 .webp", "1 .avif", "1 hidden file (._*)", "Thumbs.db"]
    )
    assert all(words in caught.value.message for words in expected)


def test_what_looks_like_an_image_and_cannot_be_read_is_kept_and_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "x.png").mkdir()
    _files(tmp_path, "x.png/inner.jpg")
    found = expand([tmp_path])
    assert _names(found, tmp_path) == ["broken.jpg", "loop.png", "pipe.tif", "x.png/inner.jpg"]
    reasons = []
    for path in found[:3]:
        with pytest.raises(ServiceError, match="FILE_UNREADABLE") as caught:
            check_readable(path)
        reasons.append(caught.value.message)
    assert "No such file" in reasons[0]
    assert "symbolic links" in reasons[1]
    assert "a pipe or a device" in reasons[2]
    check_readable(found[3])


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "x" * 5000, "/".join(["x" * 200] * 30) + ".jpg"])
def test_devices_and_paths_that_are_too_long_are_refused(path: str) -> None:
    (kept,) = expand([Path(path)])
    with pytest.raises(ServiceError, match="FILE_UNREADABLE"):
        check_readable(kept)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads every file")
def test_files_and_folders_without_permission_are_told(tmp_path: Path) -> None:
    _files(tmp_path, "a.jpg", "closed/b.jpg")
    (tmp_path / "a.jpg").chmod(0)
    (tmp_path / "closed").chmod(0)
    found = expand([tmp_path])
    (tmp_path / "closed").chmod(0o700)
    assert _names(found, tmp_path) == ["a.jpg", "closed"]


def test_a_folder_that_cannot_be_listed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _files(tmp_path, "a.jpg", "closed/b.jpg")
    listed = os.listdir

    def refuse(path: str | os.PathLike[str]) -> list[str]:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse)
    found = expand([tmp_path])
    assert _names(found, tmp_path) == ["a.jpg", "closed"]
    with pytest.raises(ServiceError, match="The folder cannot be read: Permission denied"):
        check_readable(found[1])


def test_names_that_are_written_in_two_ways_are_two_files(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Größe.jpg") for form in ("NFC", "NFD"))
    _files(tmp_path, composed, decomposed)
    found = expand([tmp_path])
    assert len(found) == 2
    assert len({unicodedata.normalize("NFC", path.name).casefold() for path in distinct_names(found, FOLDER).values()}) == 2


def test_an_image_is_never_written_over(tmp_path: Path) -> None:
    _files(tmp_path, "a.png", "b.jpg")
    (tmp_path / "link.html").symlink_to("b.jpg")
    images = expand([tmp_path])
    for written in (tmp_path / "a.png", tmp_path / "link.html", tmp_path / ".." / tmp_path.name / "b.jpg"):
        with pytest.raises(typer.BadParameter, match="written over"):
            refuse_overwriting([written], images)
    refuse_overwriting([tmp_path / "b.png"], images)


@pytest.mark.parametrize(
    "name", ["a\x1b[31m.jpg", "a\nfailed b.jpg", "a\r.jpg", "a\x9b2J.jpg", "a\u202egpj.exe", "Gr\udcf6\udcdfe.jpg", "a\u2028b", "a\x07", "a\x7f"]
)
def test_names_are_shown_without_what_a_terminal_would_obey(name: str) -> None:
    made = shown(name)
    assert "\ufffd" in made
    assert len(made) == len(name)
    assert made.encode().decode() == made
    assert re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u202e]", made) is None
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", shown_text(name)) is None


def test_usual_names_are_shown_as_they_are() -> None:
    name = "Größe 血液/Im 001_1 (2) é.jpg"
    assert shown(name) == shown_text(name) == name


@given(st.text(max_size=40))
def test_whatever_a_name_is_it_can_be_written(name: str) -> None:
    shown(name).encode()
    assert len(shown(name).splitlines()) <= 1


def test_words_of_what_was_passed_over() -> None:
    assert passed_over_words({"._*": 3, "Thumbs.db": 1, ".webp": 2}) == "3 hidden files (._*), 2 .webp, Thumbs.db"
    assert passed_over_words({}) == ""
    assert passed_over_words({f".s{i}": 1 for i in range(16)}).endswith("4 of other kinds")
    assert is_left_over("THUMBS.DB")
    assert not is_left_over("thumbs.jpg")
    assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


def test_one_name_is_kept_and_several_get_a_number() -> None:
    paths = [Path("a/x.png"), Path("b/x.jpg"), Path("c/y.png")]
    assert [p.name for p in distinct_names(paths, FOLDER).values()] == ["x_0000.png", "x_0001.png", "y.png"]


def test_a_number_never_takes_the_name_of_another_image() -> None:
    paths = [Path("a/x.png"), Path("b/x.png"), Path("c/x_0001.png")]
    assert [p.name for p in distinct_names(paths, FOLDER).values()] == ["x_0000.png", "x_0002.png", "x_0001.png"]


def test_names_that_some_systems_take_for_one_get_a_number() -> None:
    paths = [Path("a/X.png"), Path("b/x.jpg"), Path("c/Gr\u00f6.png"), Path("d/Gro\u0308.png")]
    names = [unicodedata.normalize("NFC", path.name).casefold() for path in distinct_names(paths, FOLDER).values()]
    assert len(set(names)) == 4


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["x", "x_0000", "x_0001", "x_0000_0000"])), unique=True, max_size=12))
def test_every_image_has_a_picture_of_its_own(images: list[tuple[int, str]]) -> None:
    paths = [Path(f"{folder}/{stem}.png") for folder, stem in images]
    names = distinct_names(paths, FOLDER)
    assert len(set(names.values())) == len(paths) == len(names)
