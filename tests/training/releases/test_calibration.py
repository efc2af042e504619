"""Tests of the numbers that decide."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.datasets.splits import patients_needed
from training.errors import GateError
from training.releases.calibration import (
    CELL_COUNTS,
    false_blast_table,
    fit_network_weight,
    fit_temperature,
    log_loss,
    min_probabilities,
    patient_class_weights,
    promised_coverage,
    sigmoid,
)

Double = NDArray[np.float64]


def test_weights_by_hand() -> None:
    patient = np.array(["a", "a", "a", "b", "b", "c"])
    is_blast = np.array([0, 0, 1, 0, 1, 1])
    # Normal: a (2 cells) and b share a half; blast: a, b and c share a half.
    expected = [1 / 8, 1 / 8, 1 / 6, 1 / 4, 1 / 6, 1 / 6]
    np.testing.assert_allclose(patient_class_weights(is_blast, patient), expected)


def test_log_loss_by_hand() -> None:
    found = log_loss(np.array([0.8, 0.4]), np.array([1, 0]), np.array([3.0, 1.0]))
    assert found == pytest.approx(-(3 * np.log(0.8) + np.log(0.6)) / 4)
    assert log_loss(np.array([0.0]), np.array([1]), np.array([1.0])) == pytest.approx(-np.log(1e-4))


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_temperature_recovers_a_known_scaling(scale: float) -> None:
    generator = np.random.default_rng(0)
    margin = generator.normal(0, 3, 40_000)
    is_blast = (generator.random(margin.size) < sigmoid(margin)).astype(np.int64)
    weights = np.full(margin.size, 1 / margin.size)
    assert fit_temperature(scale * margin, is_blast, weights) == pytest.approx(scale, rel=0.04)


def test_temperature_listens_to_weights() -> None:
    margin = np.array([2.0, 2.0, -2.0, -2.0])
    is_blast = np.array([1, 0, 0, 1])
    sure = fit_temperature(margin, is_blast, np.array([0.45, 0.05, 0.45, 0.05]))
    # With nine of ten right the best probability is 0.9: 2 / T = ln 9.
    assert sure == pytest.approx(2 / np.log(9), rel=1e-3)


@pytest.mark.parametrize("true_weight", [0.0, 0.3, 0.75, 1.0])
def test_network_weight_recovers_the_pool(true_weight: float) -> None:
    generator = np.random.default_rng(1)
    network, vote = generator.uniform(0.02, 0.98, (2, 60_000))
    is_blast = (generator.random(network.size) < true_weight * network + (1 - true_weight) * vote).astype(np.int64)
    found = fit_network_weight(network, vote, is_blast, np.ones(network.size))
    assert found == pytest.approx(true_weight, abs=0.05)
    assert round(found * 20) == pytest.approx(found * 20)


def test_min_probabilities_by_hand() -> None:
    # Four patients of one blast each, one more patient at the lowest value: masses of a fifth.
    fused = np.array([0.9, 0.2, 0.6, 0.8, 0.1, 0.3])
    is_blast = np.array([1, 1, 1, 1, 0, 0])
    patient = np.array(["a", "b", "c", "d", "a", "a"])
    # Coverage 0.7: of the mass 0.3, the extra patient takes 0.2; b would make 0.4, so b's is the threshold.
    assert min_probabilities(fused, is_blast, patient, coverage=0.7)["blast"] == pytest.approx(0.2)
    # Coverage 0.5: extra and b make 0.4; c would make 0.6.
    assert min_probabilities(fused, is_blast, patient, coverage=0.5)["blast"] == pytest.approx(0.6)
    # One normal patient with two cells of a quarter each: the extra patient takes a half.
    assert min_probabilities(fused, is_blast, patient, coverage=0.45)["normal"] == pytest.approx(0.7)
    assert min_probabilities(fused, is_blast, patient, coverage=0.2)["normal"] == pytest.approx(0.9)


def test_with_few_patients_nothing_is_excluded() -> None:
    fused, is_blast = np.array([0.9, 0.8, 0.1, 0.2]), np.array([1, 1, 0, 0])
    assert min_probabilities(fused, is_blast, np.array(["a", "b", "a", "b"]), coverage=0.7) == {"normal": 0.0, "blast": 0.0}


@pytest.mark.parametrize(("patients", "lowest"), [(8, None), (9, 0), (10, 0), (18, 0), (19, 1), (29, 2)])
def test_the_threshold_is_the_order_statistic_of_the_finite_sample(patients: int, lowest: int | None) -> None:
    probability = np.linspace(0.2, 0.9, patients)
    fused, is_blast = np.append(probability, 0.0), np.array([1] * patients + [0])
    found = min_probabilities(fused, is_blast, np.array([f"p{i}" for i in range(patients + 1)]), coverage=0.9)["blast"]
    assert found == pytest.approx(0.0 if lowest is None else probability[lowest], abs=1e-6)


def test_few_patients_promise_less_and_too_few_nothing() -> None:
    def promised(blasts: int, normal: int) -> float:
        labels = np.array([1] * blasts + [0] * normal)
        return promised_coverage(labels, np.array([f"p{i}" for i in range(blasts)] + [f"p{i}" for i in range(normal)]))

    assert (patients_needed(), promised(9, 30), promised(18, 18)) == (9, 0.9, 0.9)
    assert promised(4, 30) == pytest.approx(0.8)
    assert promised(20, 6) == pytest.approx(6 / 7)
    with pytest.raises(GateError, match="Only 3 calibration patients have blasts"):
        promised(3, 30)
    for patients in (4, 6, 8):
        labels = np.array([1, 0] * patients)
        fused = np.where(labels == 1, 0.8, 0.2) + np.linspace(-0.1, 0.1, len(labels))
        names = np.repeat([f"p{i}" for i in range(patients)], 2)
        assert min(min_probabilities(fused, labels, names, promised_coverage(labels, names)).values()) > 0.5, "what is promised can be kept"


def test_cells_of_one_patient_count_as_one() -> None:
    many = np.concatenate([np.full(100, 0.05), np.linspace(0.5, 0.95, 19)])
    patient = np.array(["crowd"] * 100 + [f"p{i}" for i in range(19)])
    thresholds = min_probabilities(np.concatenate([many, [0.5]]), np.array([1] * 119 + [0]), np.append(patient, "x"), coverage=0.8)
    # By cells the threshold would be 0.05. By patients the mass 0.2 holds four of 21: the extra one, the crowd, two more.
    assert thresholds["blast"] == pytest.approx(0.55)


def _patients(generator: np.random.Generator, count: int) -> tuple[Double, NDArray[np.int64], NDArray[np.str_]]:
    """Patients of uneven sizes whose cells are alike."""
    fused, labels, names = [], [], []
    for number in range(count):
        for label in (0, 1):
            cells = int(generator.integers(1, 60))
            level = generator.normal(1.2 if label else -1.2, 1.0)
            fused.append(sigmoid(level + generator.normal(0, 0.7, cells)))
            labels.append(np.full(cells, label))
            names.append(np.full(cells, f"p{number}"))
    return np.concatenate(fused), np.concatenate(labels), np.concatenate(names)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_cover_cells_of_new_patients(coverage: float) -> None:
    generator = np.random.default_rng(4)
    covered: dict[str, list[float]] = {"normal": [], "blast": []}
    for _ in range(150):
        thresholds = min_probabilities(*_patients(generator, 18), coverage=coverage)
        fused, labels, names = _patients(generator, 20)
        for label, name in ((0, "normal"), (1, "blast")):
            kept = (fused if label else 1 - fused) >= thresholds[name]
            covered[name] += [kept[(names == p) & (labels == label)].mean() for p in np.unique(names)]
    for shares in covered.values():
        assert coverage - 0.015 <= np.mean(shares) <= coverage + 0.09


def test_false_blast_table_of_patients_alike() -> None:
    generator = np.random.default_rng(2)
    suspected = generator.random(20_000) < 0.05
    patient = np.array([f"p{i % 10}" for i in range(20_000)])
    table = dict(false_blast_table(suspected, np.zeros(20_000, np.int64), patient))
    assert tuple(table) == CELL_COUNTS
    # 99th percentiles of binomial(n, 0.05).
    assert table[1] == 1
    assert table[10] == pytest.approx(3, abs=1)
    assert table[100] == pytest.approx(11, abs=1)
    assert table[1000] == pytest.approx(67, abs=5)


def test_false_blast_table_follows_the_worst_patient() -> None:
    suspected = np.array([False] * 90 + [True, False] * 5)
    patient = np.array([f"p{i // 10}" for i in range(90)] + ["bad"] * 10)
    table = dict(false_blast_table(suspected, np.zeros(100, np.int64), patient))
    # One patient in ten has a rate of one half: the percentile lies at the 90th of binomial(n, 1/2).
    assert table[100] == pytest.approx(56, abs=2)
    assert table[1000] == pytest.approx(520, abs=8)


def test_false_blasts_are_counted_on_normal_cells_only() -> None:
    table = false_blast_table(np.array([True] * 50 + [False] * 50), np.array([1] * 50 + [0] * 50), np.array(["a"] * 100))
    assert table == tuple((n, 0) for n in CELL_COUNTS)


def test_false_blast_table_does_not_descend() -> None:
    generator = np.random.default_rng(3)
    patient = np.array([f"p{i % 18}" for i in range(1800)])
    quantiles = [q for _, q in false_blast_table(generator.random(1800) < 0.02, np.zeros(1800, np.int64), patient)]
    assert quantiles == sorted(quantiles)
    assert quantiles[-1] > 0
