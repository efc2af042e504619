"""Names of pictures that are written for images of a person's folders."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clients.cli.images import distinct_names

FOLDER = Path("out")


def test_one_name_is_kept_and_several_get_a_number() -> None:
    paths = [Path("a/x.png"), Path("b/x.jpg"), Path("c/y.png")]
    assert [p.name for p in distinct_names(paths, FOLDER).values()] == ["x_0000.png", "x_0001.png", "y.png"]


def test_a_number_never_takes_the_name_of_another_image() -> None:
    paths = [Path("a/x.png"), Path("b/x.png"), Path("c/x_0001.png")]
    assert [p.name for p in distinct_names(paths, FOLDER).values()] == ["x_0000.png", "x_0002.png", "x_0001.png"]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["x", "x_0000", "x_0001", "x_0000_0000"])), unique=True, max_size=12))
def test_every_image_has_a_picture_of_its_own(images: list[tuple[int, str]]) -> None:
    paths = [Path(f"{folder}/{stem}.png") for folder, stem in images]
    names = distinct_names(paths, FOLDER)
    assert len(set(names.values())) == len(paths) == len(names)
