"""Where releases and models are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.errors import ConfigurationError
from services.common.home import HOME_VARIABLE, home
from services.common.releases import ReleaseStore
from services.common.settings import CommonSettings
from tests.paths import ROOT


def test_the_home_is_the_working_folder_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    assert home() == Path()
    assert CommonSettings().releases == Path("releases")
    monkeypatch.setenv(HOME_VARIABLE, "/srv/dl4all")
    assert home() == Path("/srv/dl4all")
    assert CommonSettings().releases == Path("/srv/dl4all/releases")
    assert CommonSettings().model_repository == Path("/srv/dl4all/model_repository")


def test_each_folder_may_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, "/srv/dl4all")
    monkeypatch.setenv("DL4ALL_RELEASES", "/data/releases")
    assert CommonSettings().releases == Path("/data/releases")
    assert CommonSettings().model_repository == Path("/srv/dl4all/model_repository")


@pytest.mark.parametrize("missing", ["releases", "model_repository"])
def test_a_folder_that_is_not_there_is_said_with_what_to_set(tmp_path: Path, missing: str) -> None:
    folders = {name: ROOT / name for name in ("releases", "model_repository")} | {missing: tmp_path / missing}
    with pytest.raises(ConfigurationError) as caught:
        ReleaseStore(**folders)
    assert caught.value.reason == "RELEASES_NOT_FOUND"
    assert (
        caught.value.message
        == f"There is no folder {tmp_path / missing}. Set DL4ALL_HOME to the folder that holds releases/ and model_repository/, such as a checkout,"
        " or DL4ALL_RELEASES and DL4ALL_MODEL_REPOSITORY to the two folders."
    )
