"""Programs that tests need: skipped where they are missing, failed in CI."""

from __future__ import annotations

import pytest

from tests.debian import listed_packages, needed_program
from tests.paths import ROOT


def test_a_missing_program_skips_the_test_but_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        needed_program("chromium", "chromium")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        needed_program("chromium", "chromium")


def test_a_package_that_ci_does_not_install_is_refused() -> None:
    with pytest.raises(AssertionError, match="is not in deploy/ci/debian-packages"):
        needed_program("sh", "dash")


def test_ci_installs_the_list_and_says_that_it_is_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "deploy/ci/debian-packages.txt" in script
    assert "export CI=1" in script
    assert listed_packages() == sorted(set(listed_packages()))
