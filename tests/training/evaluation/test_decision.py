"""Figures of the decision, computed by hand for a few cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.common.phantom import CellKind, encode_png, single_cell
from services.gateway.fusion import CellReason
from tests.training.small import cell_pack
from training.crops.packs import write_pack
from training.evaluation import decision
from training.evaluation.decision import (
    REASONS,
    ScoredCells,
    abstention_row,
    abstentions,
    against_nominal,
    auc_row,
    coverage_row,
    fusion,
    fusion_row,
    operating_point,
    share,
)
from training.evaluation.risk_coverage import Line, draw, risk_coverage
from training.metrics.by_patient import Interval

pytestmark = pytest.mark.slow

BOTH, FOCUS, DISAGREE = "BOTH_CLASSES_POSSIBLE", "POOR_FOCUS", "NETWORK_AND_NEIGHBOURS_DISAGREE"


def cells(**changes: Any) -> ScoredCells:
    """Two patients: a has blasts 0, 1 and normal cells 2, 3; b has blast 4 and normal cell 5."""
    base = ScoredCells(
        is_blast=np.array([1, 1, 0, 0, 1, 0]),
        patients=np.array(["a", "a", "a", "a", "b", "b"]),
        network=np.array([0.9, 0.4, 0.1, 0.2, 0.8, 0.3]),
        vote=np.array([0.9, 0.9, 0.6, 0.7, 0.9, 0.8]),
        fused=np.array([0.9, 0.6, 0.3, 0.4, 0.8, 0.6]),
        in_set=np.array([True, False, True, True, True, False]),
        suspected=np.array([True, False, False, False, True, True]),
        indeterminate=np.array([False, True, False, True, False, False]),
        reasons=((), (FOCUS, BOTH, DISAGREE), (), ("SHARPENING_FAILED", BOTH), (), ("SHARPENING_FAILED",)),
    )
    return replace(base, **changes)


def test_fused_against_the_better_part() -> None:
    found = fusion(cells(), resamples=400)
    # Network: 2 of 3 blasts, all normal cells. Vote: all blasts, no normal cell. Fused: all blasts, 2 of 3 normal cells.
    assert (found.network.value, found.vote.value, found.fused.value) == pytest.approx((5 / 6, 0.5, 5 / 6))
    # Patient a drawn twice: fused 1, network 0.75. Patient b twice: fused 0.5, network 1. Both: equal.
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx((0.0, -0.5, 0.25))
    assert not found.holds


def test_a_loss_of_less_than_a_hundredth_holds_and_the_sign_is_that_of_fused() -> None:
    better = cells(fused=np.array([0.9, 0.6, 0.3, 0.4, 0.8, 0.4]))
    found = fusion(better, resamples=100)
    assert found.difference.low == pytest.approx(0.0)
    assert found.holds
    assert fusion_row("x", found).endswith("+0.1667 [+0.0000, +0.2500] | yes |")
    assert not replace(found, difference=Interval(0.0, -0.01, 0.1)).holds


def test_the_better_part_is_chosen_anew_in_every_resample() -> None:
    # The network is right on patient a alone, the vote on b alone, fused on a alone: drawing b twice sets fused against the vote.
    swapped = cells(
        network=np.array([0.9, 0.9, 0.1, 0.1, 0.1, 0.9]),
        vote=np.array([0.1, 0.1, 0.9, 0.9, 0.9, 0.1]),
        fused=np.array([0.9, 0.9, 0.1, 0.1, 0.1, 0.9]),
    )
    assert fusion(swapped, resamples=200).difference.low == pytest.approx(-1.0)


def test_auc_row_by_hand() -> None:
    """Of nine pairs the network has none in the wrong order, the vote one and a half, the fused one a half."""
    row = auc_row("x", cells(vote=np.array([0.9, 0.65, 0.6, 0.7, 0.9, 0.65])), resamples=20)
    assert [part.split()[0] for part in row.split("|")[2:5]] == ["1.0000", "0.8333", "0.9444"]


def _own_cells(root: Path) -> Path:
    """Drawn cells of four patients, all for testing; the last of the blasts is unlabelled, and nobody said for what."""
    root.mkdir()
    lines = ["path,cell_class,patient_id,is_blast,subset"]
    for i in range(8):
        is_blast = i % 2
        (root / f"{i}.png").write_bytes(encode_png(single_cell(i, CellKind.BLAST if is_blast else CellKind.LYMPHOCYTE)))
        lines.append(f"{i}.png,{'blast' if is_blast else 'lymphocyte'},P{i // 2},{is_blast if i < 7 else ''},{'test' if i < 7 else ''}")
    (root / "cells.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def test_a_release_is_measured_on_cells_that_it_has_never_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _own_cells(tmp_path / "cells")
    command = ["--data", str(folder), "--release", "plain-resnet-1", "dss-1", "--cache", str(tmp_path / "packs")]
    decision.main(command)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert sum(line.startswith("| `plain-resnet-1` |") for line in lines) == 5
    assert sum(line.startswith("| `dss-1` |") for line in lines) == 5
    decision.main([*command, "--subset", "all"])
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")] == lines
    with pytest.raises(SystemExit, match="own_cells has no cells of calibration patients that are blast or normal"):
        decision.main([*command, "--subset", "calibration"])


def test_what_says_nothing_of_a_release_is_refused(tmp_path: Path) -> None:
    folder = _own_cells(tmp_path / "cells")
    write_pack(cell_pack(), tmp_path / "aml.pack")

    def refusal(*arguments: object) -> str:
        with pytest.raises(SystemExit) as caught:
            decision.main(["--cache", str(tmp_path / "packs"), "--release", "all-idb-patches-1", *map(str, arguments)])
        return str(caught.value)

    assert "all-idb-patches-1 has learned from aml_cells" in refusal("--data", tmp_path / "aml.pack", "--subset", "all")
    both = ["--data", folder, tmp_path / "aml.pack"]
    assert "Several data sets for the cells: aml_cells, own_cells; choose with --target" in refusal(*both)
    table = folder / "cells.csv"
    table.write_text("\n".join(line for line in table.read_text(encoding="utf-8").splitlines() if ",1," not in line), encoding="utf-8")
    assert "The cells of own_cells are of one class" in refusal(*both, "--target", "own_cells")


def test_coverage_over_patients_and_over_cells() -> None:
    flags, patients = np.array([True, True, True, False, False]), np.array(["a", "a", "a", "a", "b"])
    assert share(flags, patients, by_patient=True, resamples=50).value == pytest.approx((0.75 + 0.0) / 2)
    over_cells = share(flags, patients, by_patient=False, resamples=200)
    assert over_cells.value == pytest.approx(3 / 5)
    assert (over_cells.low, over_cells.high) == pytest.approx((0.0, 0.75))


@pytest.mark.parametrize(
    ("coverage", "says"),
    [
        (Interval(0.95, 0.88, 0.99), "contains nominal"),
        (Interval(0.96, 0.91, 0.99), "conservative"),
        (Interval(0.86, 0.80, 0.89), "interval below nominal"),
        (Interval(0.84, 0.70, 0.95), "too low, contains nominal"),
        (Interval(0.80, 0.75, 0.85), "too low, interval below nominal"),
        (Interval(0.85, 0.85, 0.90), "contains nominal"),
    ],
)
def test_coverage_against_nominal(coverage: Interval, says: str) -> None:
    assert against_nominal(coverage, 0.9) == says


def test_coverage_is_of_the_true_class() -> None:
    blast_patients, blast_cells, normal_patients, _ = coverage_row("x", cells(), 0.9).split(" | ")[1:]
    assert blast_patients == "0.7500 [0.5000, 1.0000] too low, contains nominal"
    assert blast_cells.startswith("0.6667 [0.5000, 1.0000]")
    assert normal_patients.startswith("0.5000 [0.0000, 1.0000]")


def test_abstentions_by_reason_and_by_first_reason() -> None:
    found = abstentions(cells(), np.ones(6, np.bool_), resamples=50)
    assert found.total.value == pytest.approx(2 / 6)
    assert found.having == pytest.approx({**dict.fromkeys(REASONS, 0.0), FOCUS: 1 / 6, BOTH: 2 / 6, DISAGREE: 1 / 6})
    assert found.first == pytest.approx({**dict.fromkeys(REASONS, 0.0), FOCUS: 1 / 6, BOTH: 1 / 6})
    assert sum(found.first.values()) == pytest.approx(found.total.value)


def test_a_reason_of_a_cell_that_is_decided_does_not_count() -> None:
    decided = cells(indeterminate=np.zeros(6, np.bool_))
    assert set(abstentions(decided, np.ones(6, np.bool_), resamples=20).having.values()) == {0.0}


def test_the_row_of_abstentions_says_whether_the_aim_is_reached() -> None:
    parts = abstention_row("x", cells()).strip("| ").split(" | ")
    assert parts[1:4] == ["33.3% [0.0%, 50.0%]", "33.3% [0.0%, 50.0%]", "33.3% [0.0%, 50.0%]"]
    assert parts[4] == "no"
    assert dict(zip(REASONS, parts[5:], strict=True)) == {
        "LOW_RESOLUTION": "none",
        FOCUS: "16.7% / 33.3% / 0.0% (16.7% / 33.3% / 0.0%)",
        BOTH: "33.3% / 33.3% / 33.3% (16.7% / 0.0% / 33.3%)",
        "NO_CLASS_TYPICAL": "none",
        DISAGREE: "16.7% / 33.3% / 0.0% (0.0% / 0.0% / 0.0%)",
        "NO_CELL_SEEN": "none",
    }
    few = cells(indeterminate=np.zeros(6, np.bool_))
    assert abstention_row("x", few).split(" | ")[4] == "yes"


def test_operating_point_counts_wrong_verdicts_among_the_decided() -> None:
    # Decided: blast 0 right, normal 2 right, blast 4 right, normal 5 suspected.
    assert operating_point(cells()) == pytest.approx((4 / 6, 1 / 4))


def test_risk_coverage_by_hand() -> None:
    # By confidence: 0.95 right, 0.1 wrong, 0.75 and 0.25 together (one right, one wrong), 0.5 wrong.
    curve = risk_coverage(np.array([0.75, 0.95, 0.5, 0.1, 0.25]), np.array([1, 1, 0, 1, 1]))
    np.testing.assert_allclose(curve.decided, [0.2, 0.4, 0.8, 1.0])
    np.testing.assert_allclose(curve.error, [0, 1 / 2, 2 / 4, 3 / 5])
    assert curve.area == pytest.approx(0.2 * 0 + 0.2 * 0.5 + 0.4 * 0.5 + 0.2 * 0.6)


def test_a_judge_who_knows_what_he_does_not_know_has_the_smaller_area() -> None:
    labels = np.array([1, 1, 1, 0])
    knows, does_not = risk_coverage(np.array([0.9, 0.8, 0.4, 0.05]), labels), risk_coverage(np.array([0.6, 0.7, 0.05, 0.2]), labels)
    assert (knows.error[-1], does_not.error[-1]) == (0.25, 0.25)
    assert knows.area == pytest.approx(0.25 / 4)
    assert does_not.area == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_the_picture_names_what_it_shows_and_is_small(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    curve = risk_coverage(random.random(3000), random.integers(0, 2, 3000))
    draw([Line(f"r{i}", curve, curve, 0.8, 0.4) for i in range(9)], tmp_path / "a" / "curve.svg")
    text = (tmp_path / "a" / "curve.svg").read_text(encoding="utf-8")
    assert len(text) < 200 * 1024
    for words in ("r0", "r3", "r8", "network alone", "what the release decides", "cells decided"):
        assert f"<!-- {words}" in text


def test_every_reason_that_leaves_a_registered_cell_indeterminate_is_told() -> None:
    assert {r.value for r in CellReason} - {CellReason.NOT_REGISTERED.value} <= set(REASONS)
