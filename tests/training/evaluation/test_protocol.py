"""Tests of the figures of the protocol and of the confounder report."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties import examples
from tests.training.small import cell_pack
from training.evaluation.confounders import border_statistics, colour_statistics, cross_validated_scores, report
from training.metrics.by_patient import auc, bootstrap_of, brier_score, expected_calibration_error, protocol_figures, sensitivity_at_specificity

pytestmark = pytest.mark.slow


def test_sensitivity_at_specificity_by_hand() -> None:
    """20 normal cells 0.00..0.95: 95 % of them are at or below 0.90; of the blasts 0.85, 0.905, 0.99 two are above."""
    scores = np.array([*(i / 20 for i in range(20)), 0.85, 0.905, 0.99])
    labels = np.array([0] * 20 + [1] * 3)
    assert sensitivity_at_specificity(scores, labels) == pytest.approx(2 / 3)
    assert sensitivity_at_specificity(scores, labels, specificity=0.5) == 1.0
    assert np.isnan(sensitivity_at_specificity(scores[:20], labels[:20]))


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=40))
def test_weights_are_repetitions(cells: list[tuple[int, int, int]]) -> None:
    scores, labels, weights = (np.array(c) for c in zip(*cells, strict=True))
    scores = scores / 10
    repeated = np.repeat(np.arange(len(cells)), weights)
    for statistic in (auc, sensitivity_at_specificity, brier_score, expected_calibration_error):
        if not len(repeated):
            continue
        with_weights = statistic(scores, labels, weights.astype(float))
        with_copies = statistic(scores[repeated], labels[repeated])
        assert with_weights == pytest.approx(with_copies, nan_ok=True)


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([0.1, 0.1, 0.9, 0.9])
    assert expected_calibration_error(probabilities, np.array([0, 0, 1, 1])) == pytest.approx(0.1)
    assert expected_calibration_error(probabilities, np.array([0, 1, 1, 1])) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)


def test_all_figures_have_an_interval_around_them() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    probabilities = np.clip(0.5 + 0.3 * (labels - 0.5) + generator.normal(0, 0.2, 300), 0, 1)
    figures = protocol_figures(probabilities, labels, np.array([f"p{i % 15}" for i in range(300)]), resamples=200)
    assert list(figures) == ["AUC", "balanced accuracy", "sensitivity at 95 % specificity", "expected calibration error", "Brier score"]
    assert all(f.low < f.high for f in figures.values())
    assert all(f.low <= f.value <= f.high for name, f in figures.items() if name != "expected calibration error")


def test_patients_are_drawn_not_cells() -> None:
    """All cells of a patient are alike: the interval of the mean is as wide as that of ten values, not of a thousand."""
    values = np.repeat(np.arange(10.0), 100)
    patients = np.repeat([f"p{i}" for i in range(10)], 100)
    interval = bootstrap_of(lambda w: float((values * w).sum() / w.sum()), patients)
    assert interval.value == 4.5
    assert interval.high - interval.low > 3


def test_statistics_of_the_border_do_not_see_the_middle() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 50, 50, 3), np.uint8)
    other = pixels.copy()
    other[:, 4:-4, 4:-4] = 0
    np.testing.assert_array_equal(border_statistics(pixels), border_statistics(other))
    assert not np.allclose(colour_statistics(pixels), colour_statistics(other))
    assert colour_statistics(pixels).shape == (3, 18)


def test_a_confounder_is_found_and_chance_is_not() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2
    groups = np.array([f"p{i // 10:02d}" for i in range(400)])
    informative = np.stack([labels + generator.normal(0, 0.5, 400), generator.normal(0, 1, 400)], axis=1)
    assert auc(cross_validated_scores(informative, labels, groups), labels) > 0.85
    assert abs(auc(cross_validated_scores(generator.normal(0, 1, (400, 5)), labels, groups), labels) - 0.5) < 0.12


def test_the_report_sees_no_test_patient() -> None:
    pack = cell_pack(patients=24)
    found = report(pack)
    assert list(found) == ["colours of the crop", "colours of the border", "focus_before alone", "radius alone", "upscale_factor alone"]
    assert found["colours of the crop"].value > 0.95
    assert found["radius alone"].value == 0.5
    ruined = pack.pixels.copy()
    ruined[pack.subsets == "test"] = 0
    assert report(type(pack)(**{**vars(pack), "pixels": ruined})) == found
