"""The report in a real browser: it is laid out, every picture of it is drawn, and nothing is fetched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clients.cli.report.test_page import make_cell, make_diagnosis, make_neighbour, render
from tests.debian import needed_program

pytestmark = pytest.mark.processes
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_PROBE = """<script>addEventListener("load", () => {
  const broken = [...document.images].filter((i) => !i.complete || !i.naturalWidth).length;
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.title = JSON.stringify({images: document.images.length, broken, wide, fetched: performance.getEntriesByType("resource").filter((e) => !e.name.startsWith("data:")).length});
})</script>"""


def _chromium(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    program = needed_program("chromium", "chromium")
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
    command = [program, *quiet, f"--user-data-dir={page.parent / 'profile'}", "--window-size=1200,1600", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = [
        make_cell(number, state, neighbours=[make_neighbour()]) for number, state in enumerate(["suspected", "indeterminate", "not_suspected"] * 4)
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    html = render(make_diagnosis(cells))
    assert html.count(_POLICY) == 1
    html = html.replace(_POLICY, f"{_POLICY}; script-src 'unsafe-inline'")  # for the probe alone: the report has no script
    path.write_text(html.replace("</body>", f"{_PROBE}</body>"), encoding="utf-8")
    return path


def test_every_picture_is_drawn_nothing_is_fetched_and_no_line_is_too_wide(page: Path) -> None:
    title = _chromium(page, "--virtual-time-budget=5000", "--dump-dom").stdout.partition("<title>")[2].partition("</title>")[0]
    assert title.startswith('{"images":'), title
    assert '"broken":0,"wide":false,"fetched":0' in title
    assert int(title.removeprefix('{"images":').partition(",")[0]) >= 12


def test_a_reader_sees_a_page_and_not_a_blank(page: Path, tmp_path: Path) -> None:
    _chromium(page, f"--screenshot={tmp_path / 'seen.png'}", "--hide-scrollbars")
    seen = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"))
    assert seen.shape == (1600, 1200, 3)
    assert len(np.unique(seen.reshape(-1, 3), axis=0)) > 200
    assert (seen.reshape(-1, 3) == seen[0, 0]).all(axis=1).mean() < 0.97
