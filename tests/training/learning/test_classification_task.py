"""Tests of the classification task."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from tests.training.small import small_network, tissue_pack
from training.errors import RecipeError, SplitError
from training.learning.classification_task import (
    ClassificationTask,
    Normaliser,
    Samples,
    fit_normaliser,
    group_root_weights,
    logits_of,
    make_optimiser,
    outputs_of,
)
from training.learning.devices import Worker
from training.learning.losses import triplet_margin
from training.learning.orthogonality import convolutional_orthogonality
from training.recipes.config import ClassWeights, Input, InputKind, Normalisation, Optimiser, Selection, Stage

CPU = Worker(torch.device("cpu"))
STAGE = Stage(input=Input(kind=InputKind.CENTER_CROP, side=32), optimiser=Optimiser(rate=1e-3), batch=8, epochs=1)


def _samples() -> Samples:
    pack = tissue_pack()
    return Samples(pack.pixels, pack.labels, pack.labels.argmax(axis=1), pack.groups)


def _task(multi_label: bool = False, **changes: object) -> ClassificationTask:
    samples = _samples()
    stage = STAGE.model_copy(update=changes)
    network = small_network(8, classes=3, seed=0)
    nothing = np.zeros(0, np.int64)
    return ClassificationTask(network, stage, samples, samples.select(nothing), Normaliser((0,) * 3, (1,) * 3), CPU, multi_label=multi_label, seed=0)


def test_group_weights_by_hand() -> None:
    """Class 0: groups of 4 and 1 weigh sqrt(4) and sqrt(1) in total; both classes weigh the same."""
    groups = np.array(["a"] * 4 + ["b"] + ["c"] * 3)
    classes = np.array([0] * 5 + [1] * 3)
    weights = group_root_weights(groups, classes)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[:5].sum() == pytest.approx(weights[5:].sum())
    assert weights[:4].sum() / weights[4] == pytest.approx(2.0)
    with pytest.raises(SplitError, match="one class"):
        group_root_weights(groups, np.zeros(8, np.int64))


def test_normalisers() -> None:
    pixels = np.zeros((1500, 4, 4, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[1024:, ..., 2] = 51, 102, 255
    none = fit_normaliser(Normalisation.NONE, pixels)
    assert (none.mean, none.std) == ((0.0,) * 3, (1.0,) * 3)
    channel = fit_normaliser(Normalisation.CHANNEL, pixels)
    assert channel.mean == pytest.approx((0.2, 0.4, 476 / 1500), abs=2e-3)
    scalar = fit_normaliser(Normalisation.SCALAR, pixels)
    first, second = pixels[:1024] / 255.0, pixels[1024:] / 255.0
    assert scalar.mean == pytest.approx(((first.mean() + second.mean()) / 2,) * 3)
    assert scalar.std == pytest.approx(((first.std() + second.std()) / 2,) * 3)


def test_normalising_keeps_the_memory_as_it_is() -> None:
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    found = Normaliser((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))(pixels)
    assert found.is_contiguous(memory_format=torch.channels_last)
    expected = (pixels[1, 2, 3, 1] / 255.0 - 0.4) / 0.2
    assert float(found[1, 1, 2, 3]) == pytest.approx(float(expected), abs=1e-5)


def test_evaluation_leaves_no_image_out_and_the_network_as_it_was() -> None:
    network = small_network(8).train()
    pixels = np.random.default_rng(0).integers(0, 256, (263, 32, 32, 3), np.uint8)
    logits = logits_of(network, pixels, Normaliser((0.5,) * 3, (0.2,) * 3), CPU.device)
    assert logits.shape == (263, 2)
    assert network.training
    alone = next(outputs_of(network, pixels[262:], Normaliser((0.5,) * 3, (0.2,) * 3), CPU.device))
    np.testing.assert_allclose(alone.logits[0], logits[262], atol=1e-5)


def test_fixed_kernels_are_not_in_the_optimiser() -> None:
    network = small_network(8)
    first = cast(torch.nn.Conv2d, network.backbone.conv1)
    first.weight.requires_grad_(False)
    groups = make_optimiser(network, STAGE).param_groups
    assert not any(p is first.weight for g in groups for p in g["params"])
    sgd = make_optimiser(network, STAGE.model_copy(update={"optimiser": Optimiser(kind="sgd", rate=0.02, momentum=0.8)}))
    assert (sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (0.8, 5e-4)


def test_multi_label_loss_by_hand() -> None:
    task = _task(multi_label=True, class_weights=ClassWeights.INVERSE_COUNT)
    batch = task.batch(0)
    network = task.network.eval()
    logits = network(task.normaliser(batch.pixels)).logits
    z, y = logits.detach().double().numpy(), batch.labels.numpy()
    entropy = np.where(y == 1, np.log1p(np.exp(-z)), np.log1p(np.exp(z)))
    expected = (entropy * (60 / np.maximum(_samples().labels.sum(axis=0), 10))).mean()
    assert float(task.loss(network, batch)) == pytest.approx(expected, rel=1e-5)


def test_class_weights_that_make_no_sense_are_refused() -> None:
    with pytest.raises(RecipeError, match="one class per image"):
        _task(multi_label=True, class_weights=ClassWeights.GROUP_ROOT)


def test_weights_of_positives_are_for_independent_labels() -> None:
    with pytest.raises(RecipeError, match="independent labels"):
        _task(class_weights=ClassWeights.POSITIVE)
    task = _task(multi_label=True, class_weights=ClassWeights.POSITIVE)
    assert task.positive_weights.tolist() == [2.0, 2.0, 2.0]


def test_orthogonality_is_added_with_its_weight() -> None:
    plain, heavier = _task(multi_label=True), _task(multi_label=True, orthogonality_weight=0.5)
    batch = plain.batch(0)
    difference = float(heavier.loss(heavier.network.eval(), batch)) - float(plain.loss(plain.network.eval(), batch))
    assert difference == pytest.approx(0.5 * float(convolutional_orthogonality(plain.network)), rel=1e-4)


def test_triplets_are_added_with_their_weight_and_margin() -> None:
    plain, heavier = _task(), _task(triplet_weight=2.0, triplet_margin=0.4)
    batch = plain.batch(0)
    network = plain.network.eval()
    embedding = network(plain.normaliser(batch.pixels)).embedding
    difference = float(heavier.loss(network, batch).detach()) - float(plain.loss(network, batch).detach())
    assert difference == pytest.approx(2.0 * float(triplet_margin(embedding, batch.fine, 0.4).detach()), rel=1e-4)
    assert difference > 0


def test_selection_without_validation_is_refused() -> None:
    with pytest.raises(RecipeError, match="needs validation images"):
        _task(selection=Selection.BEST)


@pytest.mark.parametrize(("selection", "kept"), [(Selection.BEST, 2), (Selection.BEST_LEGACY, 3)])
def test_ties_go_to_the_lower_loss_or_as_in_the_original_to_the_later_epoch(selection: Selection, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = _samples()
    stage = STAGE.model_copy(update={"selection": selection})
    task = ClassificationTask(
        small_network(8, classes=3), stage, samples, samples.select(np.arange(3)), Normaliser((0,) * 3, (1,) * 3), CPU, multi_label=False, seed=0
    )
    right = np.eye(3, dtype=np.float32)[samples.labels[:3].argmax(axis=1)]
    scores = {}
    for epoch, certainty in ((1, 1.0), (2, 5.0), (3, 2.0)):
        monkeypatch.setattr("training.learning.classification_task.logits_of", lambda *_, c=certainty: right * c)
        monkeypatch.setattr("training.learning.classification_task.outputs_of", lambda *_, c=certainty: iter([_Logits(right * c)]))
        scores[epoch] = task.score(task.network, epoch)[0]
    assert max(scores, key=lambda e: scores[e]) == kept


def test_clusters_of_blasts_are_blasts_to_the_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns normal, blast, nothing, second kind of blast: validation blasts are all called the first kind."""
    samples, labels = _samples(), np.array([0, 1, 1])
    validation = replace(samples.select(np.arange(3)), labels=np.eye(4, dtype=np.int8)[labels])
    task = ClassificationTask(
        small_network(8, classes=4),
        STAGE.model_copy(update={"selection": Selection.BEST}),
        replace(samples, labels=np.eye(4, dtype=np.int8)[np.arange(len(samples)) % 4]),
        validation,
        Normaliser((0,) * 3, (1,) * 3),
        CPU,
        multi_label=False,
        seed=0,
        merged=((0,), (1, 3), (2,)),
    )
    said = 9.0 * np.eye(4, dtype=np.float32)[[0, 1, 3]]
    monkeypatch.setattr("training.learning.classification_task.outputs_of", lambda *_: iter([_Logits(said)]))
    (accuracy, _), figures = task.score(task.network, 1)
    assert accuracy == 1.0
    assert figures["validation_loss"] < 0.01


class _Logits:
    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits
