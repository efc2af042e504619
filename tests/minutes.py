"""A plugin of pytest: minutes per folder of tests, which show what grows."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

_DEPTH = 3


def folder_of(nodeid: str) -> str:
    """The folder of a test, at most three levels deep."""
    return "/".join(PurePosixPath(nodeid.partition("::")[0]).parent.parts[:_DEPTH])


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print the minutes; tests that ran beside each other are added up."""
    seconds: Any = Counter()  # typed for whole numbers only
    tests: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[folder_of(report.nodeid)] += report.duration
                tests[folder_of(report.nodeid)] += report.when == "call"
    if seconds:
        terminalreporter.section("minutes by folder")
        for folder, spent in seconds.most_common():
            terminalreporter.write_line(f"{spent / 60:7.2f} min  {tests[folder]:5d} tests  {folder}")
