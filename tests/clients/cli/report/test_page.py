from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clients.cli.report.decision import decision_steps, finding_of
from clients.cli.report.drawings import draw_fraction
from clients.cli.report.page import ReportItem, render_report
from clients.cli.report.pictures import REGISTERED_HALF_SIDE, colour, fit_field, open_upright, overlay, register
from clients.cli.report.words import finding_words, image_reasons, percent
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.retrieval.v1 import neighbour_pb2

NOT_HELD = "image not held here"
SIDE = 16
HOSTILE = "<script>alert(1)</script>"


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def make_neighbour(reference_id: str = "known/one.png", sha256: str = "0" * 64, **fields: object) -> neighbour_pb2.Neighbour:
    heatmap = imaging_pb2.SpatialMap(values=bytes([0, 80, 160, 255]), height=2, width=2)
    values: dict[str, object] = {
        "is_blast": True,
        "cell_class": "blast_class",
        "source": "some_source",
        "patient": "P07",
        "distance": 0.123,
        "query_map": heatmap,
        "neighbour_map": heatmap,
        "center_x": 20,
        "center_y": 20,
        "radius": 8,
    }
    return neighbour_pb2.Neighbour(reference_id=reference_id, image_sha256=sha256, **{**values, **fields})  # type: ignore[arg-type]


def make_cell(number: int, state: str = "not_suspected", **fields: object) -> diagnosis_pb2.CellDiagnosis:
    values: dict[str, object] = {
        "cell": imaging_pb2.Cell(cell_id=number, center_x=30 + number % 60, center_y=40, radius=9, confidence=0.8),
        "blast_probability": 0.25,
        "network_probability": 0.2,
        "neighbour_vote": 0.4,
        "prediction_set": ["normal"],
        "suspected": state == "suspected",
        "indeterminate": state == "indeterminate",
        "registered_pixels": noise(SIDE, SIDE, number).tobytes(),
        "registered_side": SIDE,
        "position": neighbour_pb2.LatentPoint(x=0.1, y=0.2),
    }
    return diagnosis_pb2.CellDiagnosis(**{**values, **fields})  # type: ignore[arg-type]


def make_diagnosis(cells: list[diagnosis_pb2.CellDiagnosis], **fields: object) -> diagnosis_pb2.Diagnosis:
    total, suspected, indeterminate = len(cells), sum(c.suspected for c in cells), sum(c.indeterminate for c in cells)
    values: dict[str, object] = {
        "finding": diagnosis_pb2.FINDING_INDETERMINATE,
        "requires_review": True,
        "reasons": ["TOO_FEW_CELLS"],
        "counts": diagnosis_pb2.CellCounts(
            total=total, suspected=suspected, indeterminate=indeterminate, not_suspected=total - suspected - indeterminate
        ),
        "blast_fraction": diagnosis_pb2.BlastFraction(
            lower=suspected / total if total else 0, upper=(suspected + indeterminate) / total if total else 1
        ),
        "cells": cells,
        "rule": diagnosis_pb2.DecisionRule(false_blast_quantile=2, min_cells_for_negative=100, max_fraction_for_negative=0.05, coverage=0.95),
        "provenance": diagnosis_pb2.Provenance(release="release-1", detects=diagnosis_pb2.DETECTS_BLAST_LINEAGE_UNSPECIFIED),
        "latent_map": [
            neighbour_pb2.LatentReference(reference_id="known/one.png", is_blast=True, position=neighbour_pb2.LatentPoint(x=1, y=0)),
            neighbour_pb2.LatentReference(reference_id="known/two.png", position=neighbour_pb2.LatentPoint(x=-1, y=0.5)),
        ],
    }
    return diagnosis_pb2.Diagnosis(**{**values, **fields})  # type: ignore[arg-type]


def render(diagnosis: diagnosis_pb2.Diagnosis | None, *, path: str = "smear.png", image: bytes | None = None, references: Path | None = None) -> str:
    return render_report([ReportItem(path, encode(noise()) if image is None else image, diagnosis, "")], references=references)


class Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def addresses(self) -> list[str]:
        return [
            attrs[name] for _, attrs in self.tags for name in ("src", "href", "srcset", "xlink:href", "data", "poster", "action") if name in attrs
        ]

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def pictures(self, alt: str) -> list[dict[str, str]]:
        return [attrs for attrs in self.named("img") if attrs.get("alt", "").startswith(alt)]


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


@pytest.fixture
def full_page(tmp_path: Path) -> str:
    (tmp_path / "known").mkdir()
    data = encode(noise(40, 40, 1))
    (tmp_path / "known/one.png").write_bytes(data)
    near = make_neighbour(sha256=hashlib.sha256(data).hexdigest())
    cells = [make_cell(0), make_cell(1, "suspected", neighbours=[near]), make_cell(2, "indeterminate", reasons=["POOR_FOCUS"])]
    system = diagnosis_pb2.Release(
        release_id="release-1",
        title="A title.",
        limits=["Not for marrow."],
        figures=[
            diagnosis_pb2.Figure(name="AUC", value=0.9, low=0.8, high=0.95),
            diagnosis_pb2.Figure(name="Brier", value=0.1, low=math.nan, high=math.nan),
        ],
    )
    items = [ReportItem("a/one.png", encode(noise()), make_diagnosis(cells), ""), ReportItem("b/two.png", b"", None, "IMAGE_TRUNCATED")]
    return render_report(items, references=tmp_path, system=system, created=datetime(2026, 1, 2, 3, 4, tzinfo=UTC))


def test_places_of_a_cell_show_where_the_neighbour_resembles_them() -> None:
    near = make_neighbour()
    near.map_model = "net/1"
    by_place = imaging_pb2.SpatialMap(height=2, width=3, channels=4, values=bytes(range(0, 240, 10)))
    near.place_similarities.CopyFrom(neighbour_pb2.PlaceSimilarities(map=by_place, neighbour_height=2, neighbour_width=2))
    page = Page(render_report([ReportItem("a.png", encode(noise()), make_diagnosis([make_cell(0, neighbours=[near])]), "")]))
    places = [attrs for attrs in page.named("span") if attrs.get("class") == "place"]
    assert len(places) == 6
    assert all(attrs["tabindex"] == "0" for attrs in places)
    assert "maps explain net/1" in page.text
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    near.place_similarities.map.values = b"short"
    broken = Page(render_report([ReportItem("a.png", encode(noise()), make_diagnosis([make_cell(0, neighbours=[near])]), "")]))
    assert not [attrs for attrs in broken.named("span") if attrs.get("class") == "place"]


def test_where_the_network_decides_is_shown_for_both_classes_on_one_scale() -> None:
    side = bytes([255, 0, 0, 0])
    other = bytes([0, 0, 0, 128])
    activation = diagnosis_pb2.ClassActivation(
        for_blast=imaging_pb2.SpatialMap(values=side, height=2, width=2),
        for_normal=imaging_pb2.SpatialMap(values=other, height=2, width=2),
        scale=4.0,
        model="some_model/3",
    )
    page = Page(render(make_diagnosis([make_cell(0, class_activation=activation, nothing_probability=0.25), make_cell(1)])))
    assert page.text.count("they explain some_model/3") == page.text.count("No cell here, says the network") == 1
    (blast,), (normal,) = (page.pictures(f"Cell 0, where it speaks for {what}") for what in ("a blast", "a normal cell"))
    assert not page.pictures("Cell 1, where it speaks")
    first, second = (np.asarray(decode(found["src"])).astype(int) for found in (blast, normal))
    assert first.shape == second.shape == (SIDE, SIDE, 3)
    assert np.abs(first[:4, :4] - second[:4, :4]).mean() > 20


def test_page_needs_nothing_from_outside(full_page: str) -> None:
    page = Page(full_page)
    assert page.addresses
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert not page.named("link")
    assert not page.named("script")
    assert not re.search(r"url\(|@import|https?://", full_page)
    assert "default-src 'none'" in full_page


def test_links_lead_somewhere_and_ids_are_unique(full_page: str) -> None:
    page = Page(full_page)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {address[1:] for address in page.addresses if address.startswith("#")}
    assert {"image-1", "image-2", "image-1-cell-1"} <= targets
    assert targets <= set(ids)


def test_page_says_what_it_is_and_when(full_page: str) -> None:
    text = Page(full_page).text
    assert "Research demonstration, not a medical device. It assists a qualified reader and never signs out a result." in text
    assert "2026-01-02 03:04 UTC" in text
    assert "3 nucleated cells were counted: 1 is suspected, 1 is indeterminate, 1 is not suspected." in text
    assert "0.800 to 0.950" in text
    assert "Not for marrow." in text
    assert "nan" not in text.lower().split()


def test_cards_come_suspected_first_and_keep_their_numbers(full_page: str) -> None:
    cards = [attrs["id"] for attrs in Page(full_page).named("article")]
    assert cards == ["image-1-cell-1", "image-1-cell-2", "image-1-cell-0"]


def test_marks_differ_in_shape_and_line(full_page: str) -> None:
    drawing = full_page[full_page.index('<svg class="field"') :]
    drawing = drawing[: drawing.index("</svg>")]
    groups = dict(re.findall(r'<g class="(\w+)">.*?<(rect|circle) class="mark"', drawing, flags=re.S))
    assert groups == {"suspected": "rect", "indeterminate": "circle", "not_suspected": "circle"}
    assert re.search(r"^\.indeterminate \.mark \{[^}]*stroke-dasharray", full_page, flags=re.M)


def test_overview_and_error_of_a_failed_image(full_page: str) -> None:
    text = Page(full_page).text
    assert "Overview" in text
    assert "No answer: IMAGE_TRUNCATED" in text
    assert "No answer for this image. IMAGE_TRUNCATED" in text


def test_missing_diagnosis_without_error_is_said() -> None:
    assert "No diagnosis was received." in Page(render(None)).text


def test_empty_report_is_said() -> None:
    assert "This report holds no image." in Page(render_report([])).text


def test_single_image_has_no_overview() -> None:
    assert "Overview" not in Page(render(make_diagnosis([make_cell(0)]))).text


@pytest.mark.parametrize("where", ["path", "reference_id", "cell_class", "source", "patient", "reason", "cell_reason", "release", "error"])
def test_hostile_text_is_escaped(where: str) -> None:
    near = make_neighbour(**{where: HOSTILE}) if where in ("reference_id", "cell_class", "source", "patient") else make_neighbour()
    cell = make_cell(0, neighbours=[near], reasons=[HOSTILE] if where == "cell_reason" else [])
    diagnosis = make_diagnosis([cell], reasons=[HOSTILE] if where == "reason" else [])
    if where == "release":
        diagnosis.provenance.release = HOSTILE
    item = ReportItem(HOSTILE if where == "path" else "a.png", encode(noise()), diagnosis, HOSTILE if where == "error" else "")
    html = render_report([item, item])
    assert HOSTILE not in html
    assert not Page(html).named("script")
    assert "alert(1)" in Page(html).text


def test_attributes_cannot_be_broken_out_of() -> None:
    html = render(make_diagnosis([make_cell(0, neighbours=[make_neighbour('x" onerror="alert(1)')])]), path='y" onload="alert(2)')
    assert not [attrs for _, attrs in Page(html).tags if any(name.startswith("on") for name in attrs)]


def known_cell_page(folder: Path | None, near: neighbour_pb2.Neighbour) -> Page:
    return Page(render(make_diagnosis([make_cell(0, neighbours=[near])]), references=folder))


def test_held_neighbour_is_shown_with_its_map(tmp_path: Path) -> None:
    data = encode(noise(40, 40, 5))
    (tmp_path / "one.png").write_bytes(data)
    page = known_cell_page(tmp_path, make_neighbour("one.png", hashlib.sha256(data).hexdigest().upper()))
    (shown,) = page.pictures("Known cell one.png")
    expected = register(noise(40, 40, 5), 20, 20, 8, SIDE)
    assert expected is not None
    difference = np.abs(np.asarray(decode(shown["src"]), np.float64) - np.asarray(expected, np.float64))
    assert difference.mean() < 25
    assert len(page.pictures("Similarity map over the known cell")) == 1
    assert NOT_HELD not in page.text


def test_neighbour_of_another_checksum_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(encode(noise(40, 40, 5)))
    page = known_cell_page(tmp_path, make_neighbour("one.png", "1" * 64))
    assert_not_held(page)


def test_neighbour_without_checksum_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(encode(noise(40, 40, 5)))
    assert_not_held(known_cell_page(tmp_path, make_neighbour("one.png", "")))


def test_neighbour_without_folder_is_described() -> None:
    page = known_cell_page(None, make_neighbour())
    assert_not_held(page)
    for words in ("blast_class", "some_source, patient P07", "distance 0.12"):
        assert words in page.text
    assert len(page.pictures("Similarity map over this cell")) == 1


@pytest.mark.parametrize("way", ["relative", "absolute", "link", "nul"])
def test_neighbour_outside_the_folder_is_refused(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "references"
    folder.mkdir()
    outside = tmp_path / "outside.png"
    outside.write_bytes(encode(noise(40, 40, 5)))
    (folder / "link.png").symlink_to(outside)
    name = {"relative": "../outside.png", "absolute": str(outside), "link": "link.png", "nul": "a\0b"}[way]
    assert_not_held(known_cell_page(folder, make_neighbour(name, hashlib.sha256(outside.read_bytes()).hexdigest())))


def test_neighbour_that_is_no_image_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"text")
    assert_not_held(known_cell_page(tmp_path, make_neighbour("one.png", hashlib.sha256(b"text").hexdigest())))


def assert_not_held(page: Page) -> None:
    assert NOT_HELD in page.text
    assert not page.pictures("Known cell")
    assert not page.pictures("Similarity map over the known cell")


def test_unjudged_cell_is_said_to_be_not_judged() -> None:
    unjudged = make_cell(
        0,
        "indeterminate",
        blast_probability=math.nan,
        network_probability=math.nan,
        neighbour_vote=math.nan,
        prediction_set=["normal", "blast"],
        reasons=["NOT_REGISTERED"],
        registered_pixels=b"",
        registered_side=0,
    )
    text = Page(render(make_diagnosis([unjudged]))).text
    assert "Probability of a blast not judged" in text
    assert "Network alone not judged" in text
    assert "it was not judged" in text
    assert "no registered crop in this answer" in text


def test_no_cells() -> None:
    page = Page(render(make_diagnosis([], reasons=["NO_CELLS"])))
    assert "No nucleated cell was counted." in page.text
    assert "anything from 0 % to 100 % remains possible" in page.text
    assert "There is no cell to show." in page.text
    assert not page.named("article")


@pytest.mark.parametrize("as_note", [True, False])
def test_phantom_banner(as_note: bool) -> None:
    diagnosis = make_diagnosis([make_cell(0)])
    if as_note:
        diagnosis.quality.notes.append("PHANTOM")
    else:
        diagnosis.reasons.append("PHANTOM")
    html = render(diagnosis)
    assert "phantom" in [attrs.get("class") for attrs in Page(html).named("p")]
    assert "PHANTOM This is a drawing with no patient behind it." in Page(html).text


def test_no_phantom_banner_over_a_patient() -> None:
    assert "drawing" not in Page(render(make_diagnosis([make_cell(0)]))).text


def test_beyond_sixty_cells_follow_in_a_table() -> None:
    cells = [make_cell(number, "suspected" if number == 69 else "not_suspected") for number in range(70)]
    page = Page(render(make_diagnosis(cells)))
    cards = [attrs["id"] for attrs in page.named("article")]
    assert len(cards) == 60
    assert cards[0] == "image-1-cell-69"
    rows = [attrs["id"] for attrs in page.named("tr") if "id" in attrs]
    assert rows == [f"image-1-cell-{number}" for number in range(59, 69)]


def test_unknown_reason_is_shown_as_it_is() -> None:
    assert image_reasons(["SOMETHING_NEW"])[0].sentence == ""
    assert "SOMETHING_NEW" in Page(render(make_diagnosis([make_cell(0)], reasons=["SOMETHING_NEW"]))).text


@pytest.mark.parametrize("finding", [*diagnosis_pb2.Finding.values(), 99])
def test_unspecified_lineage_is_never_called_all(finding: int) -> None:
    unspecified = " ".join(vars(finding_words(finding, diagnosis_pb2.DETECTS_BLAST_LINEAGE_UNSPECIFIED)).values())
    assert not re.search(r"\bALL\b|lymphobl", unspecified)
    page = Page(render(make_diagnosis([make_cell(0)], finding=finding))).text
    assert "leukaemic blast, lineage unspecified" in page
    assert "acute lymphoblastic" not in page


def test_lymphoblast_release_is_named() -> None:
    assert "acute lymphoblastic leukaemia" in finding_words(diagnosis_pb2.FINDING_BLASTS_SUSPECTED, diagnosis_pb2.DETECTS_LYMPHOBLAST).sentence


def test_another_picture_than_the_judged_one_is_not_shown() -> None:
    diagnosis = make_diagnosis([make_cell(0)])
    image = encode(noise())
    diagnosis.provenance.image_sha256 = hashlib.sha256(image).hexdigest()
    assert len(Page(render(diagnosis, image=image)).named("image")) == 2
    page = Page(render(diagnosis, image=encode(noise(seed=1))))
    assert "not the image that was judged" in page.text
    assert not page.named("image")


def test_undecodable_picture_is_said() -> None:
    page = Page(render(make_diagnosis([make_cell(0)]), image=b"no image"))
    assert "could not be opened" in page.text
    assert not page.named("image")


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = open_upright(encode(noise(120, 90), "JPEG", exif=exif))
    assert upright is not None
    assert upright.size == (90, 120)


def test_marks_follow_a_reduced_field() -> None:
    cell = make_cell(0, cell=imaging_pb2.Cell(cell_id=0, center_x=1599.5, center_y=799.5, radius=100))
    html = render(make_diagnosis([cell]), image=encode(Image.new("RGB", (3200, 1600), "pink"), "JPEG"))
    assert 'viewBox="0 0 1600 800"' in html
    assert '<circle class="mark" cx="800.0" cy="400.0" r="56.0"/>' in html
    assert max(decode(Page(html).named("image")[0]["href"]).size) == 1600
    assert fit_field(noise()).size == (120, 90)


def test_decision_steps_and_their_finding() -> None:
    suspected = make_diagnosis([make_cell(n, "suspected") for n in range(3)])
    (step,) = decision_steps(suspected)
    assert step.numbers.startswith("3 suspected; false alarms alone exceed 2")
    assert finding_of((step,)) == diagnosis_pb2.FINDING_BLASTS_SUSPECTED
    by_chance = make_diagnosis([make_cell(n, "suspected") for n in range(2)])
    assert not decision_steps(by_chance)[0].holds
    few = make_diagnosis([make_cell(0)])
    assert [step.holds for step in decision_steps(few)] == [False, False, True]
    many = make_diagnosis([make_cell(n) for n in range(100)])
    assert finding_of(decision_steps(many)) == diagnosis_pb2.FINDING_NO_BLASTS_SEEN
    at_limit = make_diagnosis([make_cell(n, "indeterminate" if n < 5 else "not_suspected") for n in range(100)])
    assert finding_of(decision_steps(at_limit)) == diagnosis_pb2.FINDING_INDETERMINATE
    many.kind = imaging_pb2.IMAGE_KIND_CELL
    assert finding_of(decision_steps(many)) == diagnosis_pb2.FINDING_INDETERMINATE


def test_finding_that_its_numbers_do_not_give_is_marked() -> None:
    warning = "do not lead to the finding"
    assert warning in Page(render(make_diagnosis([make_cell(0)], finding=diagnosis_pb2.FINDING_NO_BLASTS_SEEN))).text
    assert warning not in Page(render(make_diagnosis([make_cell(0)]))).text


def test_fraction_bar_shows_the_limit() -> None:
    bar = draw_fraction(0.01, 0.04, 0.05)
    assert (bar.start, bar.end, bar.limit, bar.axis_end) == (10.0, 40.0, 50.0, 0.1)
    assert draw_fraction(0.0, 1.0, 0.05).end == 100.0


@pytest.mark.parametrize(
    ("share", "words"), [(0.0, "0 %"), (0.001, "below 1 %"), (0.25, "25 %"), (0.999, "above 99 %"), (1.0, "100 %"), (math.nan, "not judged")]
)
def test_percent(share: float, words: str) -> None:
    assert percent(share).replace("\u00a0", " ") == words


def test_register_centres_and_reflects() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    image[:, 4] = 255
    side = 2 * round(REGISTERED_HALF_SIDE * 10)
    square = register(Image.fromarray(image), 3.5, 30, side / 2 / REGISTERED_HALF_SIDE, side)
    assert square is not None
    columns = np.asarray(square)[side // 2, :, 0]
    assert np.flatnonzero(columns).tolist() == [side // 2 - 9, side // 2]
    assert register(Image.fromarray(image), 3, 30, math.nan, side) is None
    assert register(Image.fromarray(image), 99, 30, 5, side) is None


def test_overlay_mixes_image_and_colours() -> None:
    black = Image.new("RGB", (8, 8))
    mixed = overlay(black, imaging_pb2.SpatialMap(values=bytes([255]), height=1, width=1))
    assert mixed is not None
    top = colour(np.array([255], np.uint8))[0]
    np.testing.assert_allclose(np.asarray(mixed)[4, 4], 0.35 * top, atol=1)
    assert overlay(black, imaging_pb2.SpatialMap(values=b"12", height=2, width=2)) is None


def test_colours_grow_lighter() -> None:
    lightness = colour(np.arange(256, dtype=np.uint8)).astype(np.float64) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(lightness) > -1.0).all()
    assert lightness[-1] > lightness[0] + 150
