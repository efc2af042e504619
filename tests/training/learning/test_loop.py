"""Tests of the training loop: killed anywhere and resumed it ends at the same weights, to the bit; torch's launcher; signals; damage."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.paths import ROOT
from tests.training.small import cell_pack, small_network
from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.network import HEAD
from training.errors import ArrayFileError, RecipeError, TrainingError
from training.files.array_file import read_arrays
from training.learning.checkpoints import load_network, save_network
from training.learning.classification_task import ClassificationTask, Normaliser, Samples, make_optimiser
from training.learning.devices import Worker
from training.learning.loop import InterruptedTrainingError, LoopOptions, train
from training.recipes.config import Augmentation, ClassWeights, Input, InputKind, Optimiser, Precision, Selection, Stage

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))
STAGE = Stage(
    input=Input(kind=InputKind.REGISTERED_SHARPENED, side=32),
    augmentation=Augmentation(rotation=180, noise=0.02),
    optimiser=Optimiser(kind="adamw", rate=3e-3),
    batch=8,
    epochs=4,
    class_weights=ClassWeights.GROUP_ROOT,
    contrastive_weight=0.3,
    selection=Selection.BEST,
)


def _samples() -> Samples:
    pack = cell_pack(patients=12)
    return Samples(pack.pixels, pack.labels, pack.labels.argmax(axis=1), pack.groups)


def _task(stage: Stage = STAGE, worker: Worker = CPU, seed: int = 5) -> ClassificationTask:
    samples = _samples()
    network = small_network(8, seed=seed, width=16)
    network.dropout.p = 0.3
    chosen = np.arange(len(samples)) % 4 != 0
    return ClassificationTask(
        network, stage, samples.select(chosen), samples.select(~chosen), Normaliser((0.7,) * 3, (0.2,) * 3), worker, multi_label=False, seed=seed
    )


def _options(folder: Path, seconds: float = 60.0, precision: Precision = Precision.FP32) -> LoopOptions:
    return LoopOptions(folder, "some training", "test", 5, 0.9, precision, seconds)


def _weights(folder: Path) -> dict[str, np.ndarray]:
    return read_arrays(folder / "checkpoint.safetensors")[0]


def _run(folder: Path) -> None:
    """What a child process runs; see ``_child``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train(_task(), _options(folder, seconds=0.0), CPU)


def _child(folder: Path) -> subprocess.Popen[bytes]:
    code = f"from pathlib import Path; from tests.training.learning.test_loop import _run; _run(Path({str(folder)!r}))"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    child = _child(folder)
    assert child.wait(120) == 0, child.stderr
    return _weights(folder)


def test_killed_at_random_moments_the_weights_are_the_same_to_the_bit(tmp_path: Path, uninterrupted: dict[str, np.ndarray]) -> None:
    generator = random.Random(time.time_ns())
    checkpoint = tmp_path / "checkpoint.safetensors"
    kills, stops = 0, set()
    for _ in range(3):
        child = _child(tmp_path)
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while child.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.005)
        time.sleep(generator.uniform(0.0, 0.15))
        child.kill()
        kills += child.wait(60) == -signal.SIGKILL
        stops.add(read_arrays(checkpoint)[1]["step"])
    assert kills >= 1, "the training ended before it could be killed"
    child = _child(tmp_path)
    assert child.wait(120) == 0, child.stderr
    found = _weights(tmp_path)
    assert found.keys() == uninterrupted.keys()
    differing = [name for name in found if not np.array_equal(found[name], uninterrupted[name])]
    assert not differing, f"stopped at {stops}: {differing[:3]}"


def test_the_checkpoint_holds_average_best_and_optimiser(uninterrupted: dict[str, np.ndarray]) -> None:
    assert {name.split("/")[0] for name in uninterrupted} == {"network", "average", "best", "optimiser"}
    assert any(not np.array_equal(uninterrupted[n], uninterrupted[n.replace("network", "average")]) for n in uninterrupted if n.startswith("network"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_call_goes_on(tmp_path: Path, number: int) -> None:
    def interrupt(step: int) -> None:
        if step == 7:
            os.kill(os.getpid(), number)

    with pytest.raises(InterruptedTrainingError, match="Stopped at step 7 of 24"):
        train(_task(), _options(tmp_path / "a"), CPU, interrupt)
    assert signal.getsignal(number) is not None
    resumed = train(_task(), _options(tmp_path / "a"), CPU)
    whole = train(_task(), _options(tmp_path / "b"), CPU)
    assert resumed.step == whole.step == 24
    assert [{k: v for k, v in h.items() if k != "steps_per_second"} for h in resumed.history] == [
        {k: v for k, v in h.items() if k != "steps_per_second"} for h in whole.history
    ]
    one, other = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    train(_task(), _options(tmp_path), CPU)
    steps: list[int] = []
    task = _task()
    progress = train(task, _options(tmp_path), CPU, steps.append)
    assert steps == []
    assert progress.step == 24
    stored = _weights(tmp_path)
    assert all(np.array_equal(stored[f"network/{n}"], t.numpy()) for n, t in task.network.state_dict().items())


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    train(_task(), _options(tmp_path / "a"), CPU)
    train(_task(seed=6), _options(tmp_path / "b"), CPU)
    one, other = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert not np.array_equal(one["network/backbone.conv1.weight"], other["network/backbone.conv1.weight"])


def test_a_checkpoint_of_another_training_is_refused_and_stays(tmp_path: Path) -> None:
    train(_task(), _options(tmp_path), CPU)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    other = LoopOptions(tmp_path, "another training", "test", 5, 0.9)
    with pytest.raises(ArrayFileError, match="other options or data"):
        train(_task(), other, CPU)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    train(_task(), _options(tmp_path), CPU)
    path = tmp_path / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 255
    path.write_bytes(content)
    with pytest.raises(ArrayFileError, match="does not match its checksum"):
        train(_task(), _options(tmp_path), CPU)


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path: Path) -> None:
    task = _task(STAGE.model_copy(update={"optimiser": Optimiser(kind="sgd", rate=1e30), "selection": Selection.LAST}))
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(task, _options(tmp_path), CPU)


@pytest.mark.parametrize("kind", ["bf16", "sgd", "lbp"])
def test_what_recipes_use_resumes_to_the_bit_as_well(tmp_path: Path, kind: str) -> None:
    precision = Precision.BF16 if kind == "bf16" else Precision.FP32
    stage = STAGE.model_copy(update={"optimiser": Optimiser(kind="sgd", rate=0.01)}) if kind == "sgd" else STAGE

    def make() -> ClassificationTask:
        task = _task(stage)
        if kind == "lbp":
            torch.manual_seed(1)
            network = build_network(NetworkConfig(architecture=Architecture.RESNET18_LBP, width=8, embedding=8), {HEAD: 2}, 32)
            task.network, task.optimiser = network, make_optimiser(network, stage)
        return task

    def interrupt(step: int) -> None:
        if step == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedTrainingError):
        train(make(), _options(tmp_path / "a", precision=precision), CPU, interrupt)
    train(make(), _options(tmp_path / "a", precision=precision), CPU)
    whole = train(make(), _options(tmp_path / "b", precision=precision), CPU)
    one, other = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]


def test_a_signal_at_the_last_step_is_heard(tmp_path: Path) -> None:
    with pytest.raises(InterruptedTrainingError, match="step 24 of 24"):
        train(_task(), _options(tmp_path), CPU, lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 24 else None)
    assert train(_task(), _options(tmp_path), CPU).step == 24


def test_tensorboard_has_every_epoch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    progress = train(_task(), _options(tmp_path), CPU)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses: list[Any] = [(e.step, pytest.approx(e.value, rel=1e-6)) for e in events.Scalars("loss")]
    assert losses == [(int(h["epoch"]), h["loss"]) for h in progress.history]
    assert {"rate", "validation_accuracy", "validation_loss", "steps_per_second"} <= set(events.Tags()["scalars"])


def _join(folder: Path) -> None:
    """What each process of ``torchrun`` runs."""
    from training.learning.devices import start_worker

    torch.set_num_threads(1)
    with start_worker("cpu") as worker:
        task = _task(STAGE.model_copy(update={"selection": Selection.LAST}), worker)
        train(task, _options(folder), worker)
        save_network(folder / f"rank{worker.rank}.safetensors", task.network, {"count": worker.count})


def test_two_processes_of_torchs_launcher_end_with_the_same_trained_weights(tmp_path: Path) -> None:
    script = tmp_path / "join.py"
    script.write_text(
        f"from pathlib import Path\nfrom tests.training.learning.test_loop import _join\n_join(Path({str(tmp_path)!r}))\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (first, about), (second, _) = (load_network(tmp_path / f"rank{r}.safetensors") for r in (0, 1))
    assert about["count"] == 2
    trained = dict(small_network(8).named_parameters())
    assert all(torch.equal(first[name], second[name]) for name in trained)
    alone = _task(STAGE.model_copy(update={"selection": Selection.LAST}))
    history = train(alone, _options(tmp_path / "alone"), CPU).history
    together = read_arrays(tmp_path / "checkpoint.safetensors")[1]["history"]
    assert len(together) == len(history)
    assert together[-1]["loss"] == pytest.approx(history[-1]["loss"], rel=0.5)
    assert together[-1]["loss"] < together[0]["loss"]


def test_batches_that_cannot_be_shared_or_filled_are_refused() -> None:
    with pytest.raises(RecipeError, match="cannot be shared by 3 processes"):
        _task(worker=Worker(torch.device("cpu"), 0, 3))
    with pytest.raises(RecipeError, match="fewer than a batch"):
        _task(STAGE.model_copy(update={"batch": 512}))


def test_processes_share_the_images_of_a_step_without_overlap() -> None:
    whole = _task().batch(9)
    parts = [_task(worker=Worker(torch.device("cpu"), rank, 2)).batch(9) for rank in (0, 1)]
    assert [len(p.pixels) for p in parts] == [4, 4]
    assert torch.equal(torch.stack([p.labels for p in parts], 1).flatten(0, 1), whole.labels)
    assert not torch.equal(parts[0].pixels, parts[1].pixels)


def test_every_image_is_seen_once_an_epoch_but_for_the_last_incomplete_batch() -> None:
    task = _task(STAGE.model_copy(update={"augmentation": Augmentation(flips=False)}))
    seen = [p.tobytes() for step in range(task.steps_per_epoch) for p in task.batch(step).pixels.numpy()]
    assert len(set(seen)) == len(seen) == task.steps_per_epoch * 8
    assert len(task.train) - len(seen) < 8
