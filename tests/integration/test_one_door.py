"""Every command that takes ``--address`` answers with the gateway's address alone: the services behind it are at ports that no caller knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from clients.batch.merging import read_results
from clients.batch.shard_file import find_finished
from clients.batch.store import Store
from clients.cli.main import app
from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field
from services.common.phantom.slide import PhantomSlide, SlideOptions
from services.retrieval.additions import AdditionStore
from tests.running import Running, Stack, own_copy

FACTS = ["--normal", "--cell-class", "lymphocyte", "--patient", "n1", "--source", "here", "--confirmed-by", "Dr A", "--key", "once"]
COMMANDS = {
    "diagnose": ["diagnose", "field.png", "--release", "histotnet", "--json"],
    "slide": ["slide", "slide.tif", "--json"],
    "cells": ["cells", "field.png", "--json"],
    "focus": ["focus", "field.png", "--json"],
    "enhance": ["enhance", "cell.png", "--release", "histotnet", "--out", "out", "--json"],
    "call": ["call", "DiagnosisService/ListReleases"],
    "release list": ["release", "list", "--json"],
    "library show": ["library", "show", "--release", "dss", "--json"],
    "library add": ["library", "add", "cell.png", *FACTS],
    "batch plan": ["batch", "plan", "*.png", "--out", "batch", "--release", "histotnet", "--shard-size", "2"],
    "batch work": ["batch", "work", "batch", "--shard", "0"],
    "batch resume": ["batch", "resume", "batch"],
    "batch run": ["batch", "run", "*.png", "--out", "another"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("one-door")
    (made / "field.png").write_bytes(encode_png(smear_field(4, PhantomOptions(width=640, height=480, cells=4))))
    (made / "cell.png").write_bytes(encode_png(single_cell(6, CellKind.LYMPHOCYTE)))
    (made / "blank.png").write_bytes(encode_png(smear_field(4, PhantomOptions(width=640, height=480, cells=0))))
    PhantomSlide(1, SlideOptions(width=1024, height=1024)).write(made / "slide.tif")
    return made


@pytest.fixture(scope="module")
def gateway(stack: Stack, folder: Path) -> Iterator[Running]:
    retrieval = own_copy(stack["retrieval"], DL4ALL_RETRIEVAL_ADDITIONS=str(folder / "additions.sqlite")).start()
    made = own_copy(stack["gateway"], DL4ALL_GATEWAY_RETRIEVAL_ADDRESS=f"dns:///{retrieval.address}").start()
    try:
        for running in (retrieval, made):
            running.wait_serving()
        yield made
    finally:
        made.end()
        retrieval.end()


def _with_address(command: Any, name: str = "") -> Iterator[str]:
    if hasattr(command, "commands"):
        for child in command.commands.values():
            yield from _with_address(child, f"{name} {child.name}".strip())
    elif any("--address" in parameter.opts for parameter in command.params):
        yield name


def _run(arguments: list[str], gateway: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(app, [*arguments, "--address", gateway.address])


def _releases(batch: Path) -> list[str]:
    return read_results(Store(str(batch)))["release"].to_pylist()  # type: ignore[no-any-return]


def test_all_commands_that_take_an_address_are_tried() -> None:
    assert set(_with_address(typer.main.get_command(app))) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_address_of_the_gateway_is_enough(name: str, gateway: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = _run(COMMANDS[name], gateway, folder, monkeypatch)
    assert done.exit_code == 0, done.output
    said = [json.loads(line) for line in done.stdout.splitlines()] if done.stdout else []
    match name:
        case "diagnose":
            assert said[0]["diagnosis"]["provenance"]["release"] == "histotnet-1"
        case "slide":
            assert said[0]["slide"]["counts"]["total"] > 0
        case "cells":
            assert len(said[0]["cells"]) == 4
        case "focus":
            assert 1.0 < said[0]["score"] < 120.0
        case "enhance":
            assert said[0]["cell"]["radius"] > 10
            assert (folder / "out" / "cell.png").is_file()
        case "call":
            assert len(said[0]["releases"]) == 8
        case "release list":
            assert [r["release"] for r in said if r["default"]] == ["plain-resnet-1"]
        case "library show":
            assert said[0]["release"] == "dss-1"
        case "library add":
            (kept,) = AdditionStore(folder / "additions.sqlite").read(withdrawn=False)
            assert (kept.reference.patient, kept.source, kept.confirmed_by) == ("n1", "here", "Dr A")
        case "batch work":
            assert find_finished(Store(str(folder / "batch")), 0)
        case "batch resume":
            assert _releases(folder / "batch") == ["histotnet-1"] * 3
        case "batch run":
            assert _releases(folder / "another") == ["plain-resnet-1"] * 3


def test_a_reference_that_is_refused_is_named_and_nothing_is_kept(gateway: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(list(AdditionStore(folder / "additions.sqlite").read(withdrawn=False)))
    done = _run(["library", "add", "cell.png", "blank.png", *FACTS[:-1], "twice"], gateway, folder, monkeypatch)
    assert done.exit_code == 1
    assert "blank.png: No nucleated cell was found in this image. (NO_CELLS)" in done.stderr
    assert len(list(AdditionStore(folder / "additions.sqlite").read(withdrawn=False))) == before


def test_a_bad_first_image_is_named_though_much_is_still_being_sent(gateway: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = encode_png(smear_field(5, PhantomOptions(width=1600, height=1200, cells=20)))
    for number in range(6):
        (folder / f"large-{number}.png").write_bytes(large)
    assert 6 * len(large) > 8 * 1024 * 1024
    done = _run(["library", "add", "blank.png", *(f"large-{n}.png" for n in range(6)), *FACTS[:-1], "late"], gateway, folder, monkeypatch)
    assert done.exit_code == 1
    assert "blank.png: No nucleated cell was found in this image. (NO_CELLS)" in done.stderr


def test_a_gateway_that_takes_no_cells_says_what_to_set(stack: Stack, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = _run(COMMANDS["library add"], stack["gateway"], folder, monkeypatch)
    assert done.exit_code == 1
    assert "DL4ALL_RETRIEVAL_ADDITIONS" in done.stderr
    assert "ADDITIONS_OFF" in done.stderr


def test_a_key_that_came_with_other_cells_is_told(gateway: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run(COMMANDS["library add"], gateway, folder, monkeypatch).exit_code == 0
    (folder / "other.png").write_bytes(encode_png(single_cell(7, CellKind.MONOCYTE)))
    done = _run(["library", "add", "other.png", *FACTS], gateway, folder, monkeypatch)
    assert done.exit_code == 1
    assert "IDEMPOTENCY_KEY_REUSED" in done.stderr


def test_an_image_without_a_cell_cannot_be_enhanced(gateway: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = _run(["enhance", "blank.png", "--json"], gateway, folder, monkeypatch)
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["reason"] == "NO_CELLS"


def test_an_unknown_release_is_told_by_the_gateway(gateway: Running, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = _run(["enhance", "cell.png", "--release", "nobody", "--json"], gateway, folder, monkeypatch)
    assert json.loads(done.stdout)["error"]["reason"] == "RELEASE_UNKNOWN"
