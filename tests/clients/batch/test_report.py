"""The page on a batch."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from clients.batch.report import render_batch_report
from clients.batch.rows import results_table, set_aside_row
from tests.clients.batch.making import failed_row, lines, planned, row

CREATED = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def test_it_says_what_happened(tmp_path: Path) -> None:
    _, plan = planned(tmp_path, 22)
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    rows = [row(number, finished_at=start + number, milliseconds=100.0 + number) for number in range(20)]
    rows[19]["uri"] = "/images/<b>&.png"
    rows += [failed_row(20), set_aside_row(lines(22)[21], 3, "UNAVAILABLE")]
    page = render_batch_report(plan, results_table(rows), CREATED)
    for words in ("Batch of 22 images", "2026-01-02 03:04 UTC", "INDETERMINATE", "IMAGE_TRUNCATED", "SET_ASIDE", "1 image was set aside"):
        assert words in page
    assert "images/&lt;b&gt;&amp;.png" in page
    assert "detects blast lineage unspecified" in page
    assert page.count("<svg") == 4
    assert "s19" not in page, "pseudonyms of specimens are not shown"


def test_a_batch_without_a_diagnosis_has_a_page(tmp_path: Path) -> None:
    _, plan = planned(tmp_path, 1)
    page = render_batch_report(plan, results_table([failed_row(0)]), CREATED)
    assert "No image has a diagnosis" in page
    assert "<svg" not in page
