"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients.cli.stack.parts import triton_is_installed
from services.common.home import HOME_VARIABLE
from tests.minutes import pytest_terminal_summary as pytest_terminal_summary
from tests.paths import DATA, ROOT
from tests.properties import examples as examples
from tests.running import Stack

os.environ.setdefault(HOME_VARIABLE, str(ROOT))
signal.signal(signal.SIGINT, signal.default_int_handler)
"""Let Ctrl-C work: a shell that starts the tests in the background makes them, and every process that they start, ignore it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave long forms to ``make nightly``."""
    if os.environ.get("DL4ALL_NIGHTLY") != "1":
        for item in items:
            if item.get_closest_marker("nightly"):
                item.add_marker(pytest.mark.skip(reason="a long form: DL4ALL_NIGHTLY=1, or make nightly"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data beside the project."""
    if not DATA.is_dir():
        pytest.skip("development data not beside the project")
    return DATA


@dataclass(frozen=True)
class ReleaseCopy:
    """A copy of the releases and of the model repository that a test may break."""

    releases: Path
    model_repository: Path


@pytest.fixture
def release_copy(tmp_path: Path) -> ReleaseCopy:
    """A fresh copy of ``releases`` and ``model_repository``."""
    copied = ReleaseCopy(tmp_path / "releases", tmp_path / "model_repository")
    shutil.copytree(ROOT / "releases", copied.releases)
    shutil.copytree(ROOT / "model_repository", copied.model_repository)
    return copied


@pytest.fixture(scope="session")
def triton_installed() -> None:
    """A real Triton."""
    if not triton_is_installed():
        pytest.skip("no Triton here: make triton")


@pytest.fixture(scope="session")
def stack(triton_installed: None) -> Iterator[Stack]:
    """Five services in processes of their own and a Triton, whose models can be unloaded. Tests leave it as they found it."""
    made = Stack.make({"DL4ALL_WORKERS": "2"}, triton=("--model-control", "explicit"))
    try:
        yield made.start()
    finally:
        made.end()
