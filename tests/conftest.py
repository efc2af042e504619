"""Fixtures that several rooms share."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data beside the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("development data not beside the project")
    return folder


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
