"""Tables as people's programs write them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.datasets.tables import read_rows
from training.errors import DatasetError

COLUMNS = ("path", "cell_class", "patient_id", "is_blast")
PLAIN = "path,cell_class,patient_id,is_blast\na.png,blast,P 1,1\nb.png,,P2,\n"
ROWS = [
    {"path": "a.png", "cell_class": "blast", "patient_id": "P 1", "is_blast": "1"},
    {"path": "b.png", "cell_class": "", "patient_id": "P2", "is_blast": ""},
]


def _read(tmp_path: Path, content: bytes, name: str = "cells.csv") -> list[dict[str, str]]:
    (tmp_path / name).write_bytes(content)
    return read_rows(tmp_path / name, COLUMNS, ("subset",))


@pytest.mark.parametrize(
    "content",
    {
        "plain": PLAIN.encode(),
        "semicolons": PLAIN.replace(",", ";").encode(),
        "tabs": PLAIN.replace(",", "\t").encode(),
        "bars": PLAIN.replace(",", "|").encode(),
        "BOM": PLAIN.encode("utf-8-sig"),
        "UTF-16, as Excel's Unicode text": PLAIN.replace(",", "\t").encode("utf-16"),
        "CRLF": PLAIN.replace("\n", "\r\n").encode(),
        "CR, as an old Mac": PLAIN.replace("\n", "\r").encode(),
        "all of Excel": PLAIN.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig"),
        "the separator declared": ("sep=;\r\n" + PLAIN.replace(",", ";")).encode(),
        "spaces": PLAIN.replace(",", " , ").encode(),
        "spaces and tabs in the header": PLAIN.replace("path", " path\t ").encode(),
        "quotes": b'"path","cell_class","patient_id","is_blast"\n"a.png", "blast", "P 1", "1"\n"b.png","","P2",""\n',
        "trailing commas": PLAIN.replace("\n", ",\n").encode(),
        "many trailing commas": PLAIN.replace("\n", ",,,\n").encode(),
        "trailing commas of rows alone": PLAIN.replace(",1\n", ",1,,\n").encode(),
        "empty lines": ("\n" + PLAIN.replace("\n", "\n\n") + ",,,\n \n").encode(),
        "upper case": PLAIN.replace("path", "Path").replace("is_blast", "IS_BLAST").encode(),
        "no line end at the end": PLAIN.encode().rstrip(b"\n"),
    }.items(),
    ids=lambda content: content[0],
)
def test_a_table_is_read_whatever_program_wrote_it(tmp_path: Path, content: tuple[str, bytes]) -> None:
    assert _read(tmp_path, content[1]) == ROWS


def test_a_zipped_table_is_read(tmp_path: Path) -> None:
    assert _read(tmp_path, gzip.compress(PLAIN.encode()), "cells.csv.gz") == ROWS


def test_an_optional_column_is_known_in_any_case_and_others_stay_as_they_are(tmp_path: Path) -> None:
    content = PLAIN.replace("is_blast", "is_blast,Subset,My Notes").replace(",1\n", ",1,train,x\n").replace("P2,\n", "P2,,test,\n")
    first, second = _read(tmp_path, content.encode())
    assert (first["subset"], first["My Notes"], second["subset"]) == ("train", "x", "test")


def test_a_name_as_it_is_wanted_goes_before_one_of_another_case(tmp_path: Path) -> None:
    first, _ = _read(tmp_path, PLAIN.replace("path,", "Path,path,").replace("a.png", "old,a.png").replace("b.png", "old,b.png").encode())
    assert (first["Path"], first["path"]) == ("old", "a.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            PLAIN.replace("patient_id", "patient").encode(),
            r"lacks the columns \['patient_id'\]. Found: path, cell_class, patient, is_blast. Needed: path, ",
        ),
        (b"a b c\n1 2 3\n", r"Found: a b c. Needed: path"),
        (b"", "is empty; needed are the columns path, cell_class"),
        (b"\n \n,,,\n", "is empty"),
        (PLAIN.replace("cell_class", "path").encode(), r"lacks the columns \['cell_class'\]"),
        (("path," + PLAIN.replace("\n", "\nx,")).removesuffix("x,").encode(), "two columns of the name path"),
        (PLAIN.replace("P2,", "P2").encode(), r"rows \[3\] do not have as many fields as the header, 4"),
        (PLAIN.replace("P2,", "P2,0,more").encode(), r"rows \[3\] do not"),
        (PLAIN.replace("a.png", "Größe.png").encode("cp1252"), "line 2 is not UTF-8; save the table as CSV UTF-8"),
        (b"PK\x03\x04 a workbook", "it is a workbook or an archive, not text"),
        (b"\xff\xfe\x00", "not a readable table"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        _read(tmp_path, content)


@given(st.binary(max_size=200))
def test_whatever_the_file_holds_the_answer_is_rows_or_a_complaint(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    try:
        _read(tmp_path_factory.mktemp("table"), content)
    except DatasetError as error:
        str(error).encode()
