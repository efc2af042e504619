"""Tests of learning source and target at once: batches, statistics, heads; killed anywhere and resumed, it ends at the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.paths import ROOT
from tests.training.small import SIDE, cell_pack, tissue_pack
from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.network import HEAD, SOURCE_HEAD, Network
from training.datasets.splits import Split
from training.errors import RecipeError
from training.files.array_file import read_arrays
from training.learning import interleaved_task as interleaved
from training.learning.checkpoints import load_network, save_network
from training.learning.classification_task import Samples
from training.learning.devices import Worker
from training.learning.interleaved_step import Learner
from training.learning.interleaved_task import InterleavedTask, Side
from training.learning.loop import InterruptedTrainingError, LoopOptions, train
from training.recipes.config import Augmentation, ClassWeights, Input, InputKind, Interleaving, Optimiser, Precision, Selection, Stage, Variant

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))
NOTHING = np.zeros(0, np.int64)
STAGE = Stage(
    input=Input(kind=InputKind.REGISTERED_SHARPENED, side=SIDE),
    augmentation=Augmentation(rotation=180, noise=0.02),
    optimiser=Optimiser(kind="sgd", rate=2e-3),
    batch=12,
    epochs=4,
    class_weights=ClassWeights.GROUP_ROOT,
    contrastive_weight=0.3,
    selection=Selection.BEST,
)
HOW = Interleaving(variant=Variant.REGULAR, input=Input(kind=InputKind.CENTER_CROP, side=SIDE), readaptation=3)
KINDS = ["regular", "self", "greedy", "greedy_legacy"]


def _network(architecture: Architecture = Architecture.RESNET18, width: int = 8, seed: int = 5) -> Network:
    torch.manual_seed(seed)
    return build_network(NetworkConfig(architecture=architecture, width=width, embedding=8, dropout=0.3), {HEAD: 2, SOURCE_HEAD: 3}, SIDE)


def _sides(stage: Stage = STAGE, source_batch: int = 6, multi_label: bool = False) -> tuple[Side, Side]:
    tissue, cells = tissue_pack(), cell_pack(patients=12)
    source = Samples(tissue.pixels, tissue.labels, tissue.labels.argmax(axis=1), tissue.groups)
    target = Samples(cells.pixels, cells.labels, cells.labels.argmax(axis=1), cells.groups)
    train_on = np.flatnonzero(np.arange(len(target)) % 4 != 0)
    validation = np.flatnonzero(np.arange(len(target)) % 4 == 0)
    of_source = HOW.source_stage(stage, source_batch)
    return Side(source, Split(np.arange(len(source)), NOTHING, NOTHING), of_source, multi_label), Side(
        target, Split(train_on, validation, NOTHING), stage, False
    )


def _task(variant: str = "regular", stage: Stage = STAGE, worker: Worker = CPU, network: Network | None = None, **how: Any) -> InterleavedTask:
    changed = HOW.model_copy(update={"variant": Variant(variant), **how})
    return InterleavedTask(network or _network(), changed, *_sides(stage), 5, worker)


def _options(folder: Path, seconds: float = 60.0) -> LoopOptions:
    return LoopOptions(folder, "some training", "test", 5, checkpoint_seconds=seconds)


def _checkpoint(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return read_arrays(folder / "checkpoint.safetensors")


def _run(folder: Path, variant: str) -> None:
    """What a child process runs; see ``_child``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train(_task(variant), _options(folder, seconds=0.0), CPU)


def _child(folder: Path, variant: str) -> subprocess.Popen[bytes]:
    code = f"from pathlib import Path; from tests.training.learning.test_interleaved_task import _run; _run(Path({str(folder)!r}), {variant!r})"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _figures(about: dict[str, Any]) -> list[dict[str, float]]:
    return [{k: v for k, v in h.items() if k != "steps_per_second"} for h in about["history"]]


@pytest.mark.nightly
def test_killed_at_random_moments_a_greedy_training_is_the_same_to_the_bit(tmp_path: Path) -> None:
    generator = random.Random(time.time_ns())
    checkpoint = tmp_path / "a" / "checkpoint.safetensors"
    kills, stops = 0, set()
    for _ in range(2):
        child = _child(tmp_path / "a", "greedy")
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while child.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.005)
        time.sleep(generator.uniform(0.0, 0.3))
        child.kill()
        kills += child.wait(60) == -signal.SIGKILL
        stops.add(read_arrays(checkpoint)[1]["step"])
    assert kills >= 1, "the training ended before it could be killed"
    for name in ("a", "b"):
        child = _child(tmp_path / name, "greedy")
        assert child.wait(120) == 0, child.stderr
    (found, about), (whole, uninterrupted) = _checkpoint(tmp_path / "a"), _checkpoint(tmp_path / "b")
    assert found.keys() == whole.keys()
    assert not [name for name in found if not np.array_equal(found[name], whole[name])], f"stopped at {stops}"
    assert about["memory"] == uninterrupted["memory"]
    assert _figures(about) == _figures(uninterrupted)


@pytest.mark.parametrize("variant", KINDS)
def test_a_signal_in_mid_epoch_changes_nothing(tmp_path: Path, variant: str) -> None:
    def interrupt(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedTrainingError, match="Stopped at step 6 of 16"):
        train(_task(variant), _options(tmp_path / "a"), CPU, interrupt)
    train(_task(variant), _options(tmp_path / "a"), CPU)
    train(_task(variant), _options(tmp_path / "b"), CPU)
    (resumed, about), (whole, uninterrupted) = _checkpoint(tmp_path / "a"), _checkpoint(tmp_path / "b")
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)
    assert _figures(about) == _figures(uninterrupted)
    assert about["memory"] == uninterrupted["memory"]
    assert set(about["memory"]) == ({"bar", "kept", "steps"} if variant.startswith("greedy") else set())
    assert ("kept" in about["history"][0]) is variant.startswith("greedy")


def test_the_literal_rule_keeps_fewer_source_steps_than_the_repaired_one(tmp_path: Path) -> None:
    stage = STAGE.model_copy(update={"epochs": 8, "selection": Selection.LAST})
    kept = {v: [h["kept"] for h in train(_task(v, stage), _options(tmp_path / v), CPU).history] for v in ("greedy", "greedy_legacy")}
    assert all(0.0 <= k <= 1.0 for shares in kept.values() for k in shares)
    assert np.mean(kept["greedy"]) > np.mean(kept["greedy_legacy"])
    task = _task("greedy_legacy", stage)
    assert task.memory["bar"] == 1e6
    train(task, _options(tmp_path / "greedy_legacy"), CPU)
    assert task.memory["bar"] < 2.0, "the lowest loss of a batch comes from the checkpoint"


@dataclass
class _Told:
    """A pair of batches whose target loss after the source step is given: L1 = w + 3 s, the gradients of L2 are those of 2 w + 5 t."""

    w: nn.Parameter
    s: nn.Linear
    t: nn.Linear
    target_loss: float

    def source(self) -> Tensor:
        return (self.w + 3 * self.s.weight).sum()

    def target(self) -> Tensor:
        learned = (2 * self.w + 5 * self.t.weight).sum()
        return learned - learned.detach() + self.target_loss


@pytest.mark.parametrize(
    ("variant", "kept", "bar"),
    [
        # bars before each step: inf, 5, 4.5, 5.25, 4.875, 4.3875, 6.19375
        ("greedy", [True, True, False, True, True, False, False], 6.596875),
        # 1e6, 5, 4, 4, 4, 3.9, 3.9
        ("greedy_legacy", [True, True, False, False, True, False, False], 3.9),
    ],
)
def test_a_sequence_of_steps_is_kept_and_undone_as_computed_by_hand(
    monkeypatch: pytest.MonkeyPatch, variant: str, kept: list[bool], bar: float
) -> None:
    """From weights of 1 at a rate of 0.1, batches of 1 and 3: a kept step moves w, s, t by 0.15, 0.15, 1/3, one that is undone by 0.2, 0, 0.5."""
    task = _task(variant, greedy_memory=0.5)
    network = nn.ParameterDict({"w": nn.Parameter(torch.ones(1))})
    source_head, target_head = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for name, head in (("s", source_head), ("t", target_head)):
        nn.init.ones_(head.weight)
        network[name] = head.weight
    learner = Learner(network, torch.optim.SGD(network.parameters(), lr=0.1), source_head, target_head, 1, 3)
    monkeypatch.setattr(task, "_learner", learner)
    found, batch = [], task.batch(0)
    for loss in (5.0, 4.0, 6.0, 4.5, 3.9, 8.0, 7.0):
        monkeypatch.setattr(interleaved, "_Forward", lambda *_, told=loss: _Told(network["w"], source_head, target_head, told))
        before = task.memory["kept"]
        task.take_step(task.network, batch)
        found.append(task.memory["kept"] > before)
    assert found == kept
    assert task.memory == {"bar": pytest.approx(bar), "kept": kept.count(True), "steps": 7}
    undone = kept.count(False)
    expected = (1 - 0.15 * (7 - undone) - 0.2 * undone, 1 - 0.15 * (7 - undone), 1 - (7 - undone) / 3 - 0.5 * undone)
    assert [float(network[n].detach()) for n in "wst"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("bar", "passes"), [(float("inf"), 3), (float("-inf"), 2)])
def test_what_is_undone_takes_its_refresh_along(bar: float, passes: int) -> None:
    """Source, refresh and target; where that is undone, refresh and target alone."""
    task = _task("greedy")
    task.memory["bar"] = bar
    task.network.train()
    task.take_step(task.network, task.batch(0))
    assert task.memory["kept"] == (passes == 3)
    assert int(task.judged.state_dict()["backbone.bn1.num_batches_tracked"]) == passes


def test_an_epoch_ends_with_the_data_set_that_ends_first_and_shows_no_image_twice() -> None:
    plain = STAGE.model_copy(update={"augmentation": Augmentation(flips=False)})
    task = _task(stage=plain)
    assert (len(task.source.train), len(task.target.train)) == (60, 54)
    assert task.steps_per_epoch == min(60 // 6, 54 // 12) == 4
    orders = []
    for epoch in (0, 1):
        batches = [task.batch(epoch * 4 + step) for step in range(4)]
        cells = [p.tobytes() for b in batches for p in b.target.pixels.numpy()]
        tissue = [p.tobytes() for b in batches for p in b.source.pixels.numpy()]
        assert [len(b.source.pixels) for b in batches] == [6] * 4
        assert len(set(cells)) == len(cells) == 48
        orders.append(tissue)
    assert orders[0] != orders[1]
    assert np.array_equal(task.batch(5).target.pixels, task.batch(5).target.pixels)


def test_heads_learn_faster_than_the_rest_and_each_from_its_own_batch() -> None:
    task = _task()
    heads = [id(p) for p in task.judged.heads.parameters()]
    groups = task.optimiser.param_groups
    assert [group.get("rate_scale", 1.0) for group in groups] == [1.0, 5.0]
    assert [id(p) for p in groups[1]["params"]] == heads
    assert sum(len(g["params"]) for g in groups) == len(list(task.network.parameters()))
    before = {n: p.detach().clone() for n, p in task.judged.named_parameters()}
    task.take_step(task.network, task.batch(0))
    assert not [n for n, p in task.judged.named_parameters() if torch.equal(p, before[n])]


@pytest.mark.parametrize(("refreshes", "passes"), [(True, 3), (False, 2)])
def test_the_refresh_is_one_more_pass_of_the_target(refreshes: bool, passes: int) -> None:
    task = _task(refresh=refreshes)
    task.network.train()
    task.take_step(task.network, task.batch(0))
    assert int(task.judged.state_dict()["backbone.bn1.num_batches_tracked"]) == passes


def test_a_readaptation_leaves_the_statistics_of_the_target_and_all_weights() -> None:
    task = _task(readaptation=80)
    before = {n: p.detach().clone() for n, p in task.judged.named_parameters()}
    task.readapt(1)
    assert all(torch.equal(p, before[n]) for n, p in task.judged.named_parameters())
    found = task.judged.state_dict()["backbone.bn1.running_mean"].clone()
    task.judged.eval()
    with torch.no_grad():
        pixels = task.target.inputs(task.target.augmented(np.arange(54), (1,)))
        seen = task.judged.get_submodule("backbone.conv1")(pixels).mean(dim=(0, 2, 3))
    assert torch.allclose(found, seen, atol=0.05)
    task.readapt(1)
    again = _task(readaptation=80)
    again.readapt(1)
    again.readapt(1)
    pairs = zip(task.judged.state_dict().values(), again.judged.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def _head(task: InterleavedTask) -> nn.Linear:
    return cast(nn.Linear, task.judged.heads[HEAD])


@pytest.mark.parametrize(
    ("architecture", "variant"), [(Architecture.VIT_B16, "regular"), (Architecture.VIT_B16, "greedy"), *((Architecture.VIT_SMALL, k) for k in KINDS)]
)
def test_transformers_take_a_step(architecture: Architecture, variant: str) -> None:
    small = STAGE.model_copy(update={"batch": 6, "optimiser": Optimiser(kind="sgd", rate=1e-3)})
    task = _task(variant, small, network=_network(architecture, width=32))
    assert task.readaptation == (0 if architecture is Architecture.VIT_B16 else 3)
    assert task.domains.refreshes is (architecture is Architecture.VIT_SMALL)
    before = _head(task).weight.detach().clone()
    task.network.train()
    loss = task.take_step(task.network, task.batch(0))
    assert bool(torch.isfinite(loss))
    assert not torch.equal(before, _head(task).weight)


@pytest.mark.parametrize("variant", ["regular", "greedy"])
def test_half_precision_reaches_every_weight_through_the_refresh(variant: str) -> None:
    task = _task(variant, STAGE.model_copy(update={"precision": Precision.BF16}))
    task.network.train()
    task.take_step(task.network, task.batch(0))
    of_source = {f"heads.{SOURCE_HEAD}.weight", f"heads.{SOURCE_HEAD}.bias"} if variant == "greedy" else set()
    assert {n for n, p in task.judged.named_parameters() if p.grad is None} == of_source
    assert all(p.dtype == torch.float32 for p in task.judged.parameters())


def test_a_multi_label_source_is_learned_by_its_own_loss() -> None:
    source, target = _sides(multi_label=True)
    task = InterleavedTask(_network(), HOW, source, target, 5, CPU)
    assert task.source.multi_label
    assert task.source.class_weights.tolist() == pytest.approx([3.0] * 3)  # 60 / 20
    assert bool(torch.isfinite(task.take_step(task.network, task.batch(0))))


@pytest.mark.parametrize("variant", ["greedy", "greedy_legacy"])
def test_greedy_is_refused_in_several_processes(variant: str) -> None:
    with pytest.raises(RecipeError, match=f"variant {variant} .* one process, not 2; start it without torchrun"):
        _task(variant, worker=Worker(torch.device("cpu"), 0, 2))


def _join(folder: Path) -> None:
    """What each process of ``torchrun`` runs."""
    from training.learning.devices import start_worker

    torch.set_num_threads(1)
    with start_worker("cpu") as worker:
        task = _task(stage=STAGE.model_copy(update={"selection": Selection.LAST}), worker=worker)
        train(task, _options(folder), worker)
        save_network(folder / f"rank{worker.rank}.safetensors", task.judged, {"count": worker.count})


def test_two_processes_end_with_the_same_trained_weights(tmp_path: Path) -> None:
    script = tmp_path / "join.py"
    script.write_text(
        f"from pathlib import Path\nfrom tests.training.learning.test_interleaved_task import _join\n_join(Path({str(tmp_path)!r}))\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (first, about), (second, _) = (load_network(tmp_path / f"rank{r}.safetensors") for r in (0, 1))
    assert about["count"] == 2
    trained = dict(_network().named_parameters())
    assert all(torch.equal(first[name], second[name]) for name in trained)
    assert not any(torch.equal(first[name], p) for name, p in trained.items())
    history = _checkpoint(tmp_path)[1]["history"]
    assert history[-1]["loss"] < history[0]["loss"]
