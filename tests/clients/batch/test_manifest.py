"""Manifests: folders, globs, CSV, Parquet."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from clients.batch.errors import BatchError
from clients.batch.manifest import Line, as_lines, as_table, digest, read_source

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
IDENTIFIERS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_text(text, encoding=encoding)
    return str(path)


def test_a_folder_gives_its_images_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", ".hidden.png", "notes.txt", "c/d.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = read_source(str(tmp_path))
    assert [line.uri for line in found.lines] == [str(tmp_path / name) for name in ("a.jpg", "b.png", "c/d.tif")]
    assert [line.number for line in found.lines] == [0, 1, 2]
    assert "1 hidden file" in found.passed_over


def test_a_glob_gives_what_it_matches(tmp_path: Path) -> None:
    for name in ("one/a.png", "two/b.png", "two/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = read_source(str(tmp_path / "**" / "*.png"))
    assert [line.uri for line in found.lines] == [str(tmp_path / "one/a.png"), str(tmp_path / "two/b.png")]


def test_csv_keeps_texts_as_they_are(tmp_path: Path) -> None:
    source = write(tmp_path / "m.csv", "specimen,path,microns_per_pixel,remark\n0012,a.png,0.25,x\nNA,sub/b.png,,y\nnull,/abs/c.png,0,z\n")
    found = read_source(source).lines
    assert found == (
        Line(0, str(tmp_path / "a.png"), "0012", "", 0.25),
        Line(1, str(tmp_path / "sub/b.png"), "NA"),
        Line(2, "/abs/c.png", "null"),
    )


def test_csv_of_a_spreadsheet_with_semicolons_and_a_mark(tmp_path: Path) -> None:
    source = write(tmp_path / "m.csv", "uri;release\nmemory://x/a.png;dss\n", "utf-8-sig")
    assert read_source(source).lines == (Line(0, "memory://x/a.png", "", "dss"),)


def test_parquet_with_other_columns(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"path": ["a.png"], "microns_per_pixel": [0.5], "more": [1]}), tmp_path / "m.parquet")
    assert read_source(str(tmp_path / "m.parquet")).lines == (Line(0, str(tmp_path / "a.png"), microns_per_pixel=0.5),)


def test_manifests_and_folders_of_an_object_store() -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file("/archive-of-a-test/one/a.png", b"")
    system.pipe_file("/archive-of-a-test/one/.b.png", b"")
    system.pipe_file("/archive-of-a-test/m.csv", b"path\none/a.png\n")
    expected = ("memory:///archive-of-a-test/one/a.png", "memory://archive-of-a-test/one/a.png")
    for source in ("memory://archive-of-a-test/one", "memory://archive-of-a-test/*/*.png", "memory://archive-of-a-test/m.csv"):
        (line,) = read_source(source).lines
        assert line.uri in expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\na.png\n", "no column path or uri"),
        ("path,microns_per_pixel\na.png,11\n", "image 1: microns_per_pixel must lie in"),
        ("path,microns_per_pixel\na.png,0.2\nb.png,wide\n", "image 2"),
        ("path,specimen\na.png,M\u00fcller\n", "specimen must have"),
        ('path\na.png\n""\n', "image 2: the path is empty"),
        ("path\n", "holds no image"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BatchError, match=words):
        read_source(write(tmp_path / "m.csv", text))


def test_what_is_not_there_or_no_manifest_is_said(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="cannot be read"):
        read_source(str(tmp_path / "none.csv"))
    with pytest.raises(BatchError, match="cannot be read"):
        read_source(write(tmp_path / "latin.csv", "path\ncaf\u00e9.png\n", "latin-1"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(BatchError, match="cannot be read"):
        read_source(str(tmp_path / "broken.parquet"))
    with pytest.raises(BatchError, match="is no folder"):
        read_source(str(tmp_path / "none"))
    with pytest.raises(BatchError, match="holds no image"):
        read_source(str(tmp_path))


@given(st.lists(st.builds(Line, st.integers(0, 9), TEXTS, IDENTIFIERS, IDENTIFIERS, st.sampled_from([0.0, 0.25]))))
def test_lines_come_back_and_have_one_digest(lines: list[Line]) -> None:
    assert as_lines(as_table(lines)) == lines
    assert digest(as_lines(as_table(lines))) == digest(lines)


@given(st.lists(st.tuples(TEXTS, IDENTIFIERS), min_size=1, max_size=5, unique=True))
def test_another_order_or_content_has_another_digest(pairs: list[tuple[str, str]]) -> None:
    lines = [Line(number, uri, specimen) for number, (uri, specimen) in enumerate(pairs)]
    assert digest(lines) != digest(lines[:-1])
    assert len(lines) < 2 or digest(lines) != digest(lines[::-1])
    assert digest([Line(0, "ab", "c")]) != digest([Line(0, "a", "bc")])
