"""The training loop that all recipes share: batches ahead of time, rates by step, resumable at any step, one process or many."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar, runtime_checkable

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from training.errors import TrainingError
from training.learning.checkpoints import Progress, load_checkpoint, save_checkpoint
from training.learning.devices import Worker, arithmetic
from training.learning.schedules import Rates
from training.recipes.config import Precision

CHECKPOINT_SECONDS: Final = 60.0
SHOWN_EVERY: Final = 10
"""Steps between two updates of the progress bar; each waits for the GPU."""
Batch = TypeVar("Batch")
Figures = dict[str, float]


class Task(Protocol, Generic[Batch]):
    """The network and the batches of a training: everything that a recipe must give to the loop."""

    network: nn.Module
    optimiser: Optimizer
    steps_per_epoch: int
    epochs: int

    def batch(self, step: int) -> Batch:
        """The images of a step, on the CPU; a function of the step alone, called ahead in another thread."""

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Forward pass and loss on the device; ``network`` is ``self.network``, possibly wrapped for several processes."""

    def rates(self, step: int) -> Rates:
        """Learning rate and momentum of a step."""

    def score(self, network: nn.Module, epoch: int) -> tuple[tuple[float, ...], Figures]:
        """After an epoch: a score, larger is better, compared as a tuple, and figures to keep; empty ones if nothing is validated."""


@runtime_checkable
class SteppingTask(Protocol):
    """A task with a step of its own, for which one backward pass of one loss is not enough.

    Attributes:
        memory: numbers that steps leave for later ones; kept in the checkpoint, infinite ones as well.
    """

    memory: dict[str, float]

    def take_step(self, network: nn.Module, batch: Any) -> Tensor:
        """Forward and backward passes and steps of the optimiser; rates are set and torch's generator is seeded. Returns the loss, 0-d."""


@dataclass(frozen=True)
class LoopOptions:
    """How a training runs.

    Attributes:
        folder: where checkpoint and TensorBoard logs go.
        identity: what is trained on what; a checkpoint of another training is refused.
        title: shown before the progress bar.
        seed: with the step decides dropout.
        average_decay: decay per step of the moving average of the weights; 0 for none.
        precision: arithmetic of the forward pass.
        checkpoint_seconds: how often the state is written.
    """

    folder: Path
    identity: str
    title: str
    seed: int
    average_decay: float = 0.0
    precision: Precision = Precision.FP32
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    @property
    def checkpoint(self) -> Path:
        """The state of the training."""
        return self.folder / "checkpoint.safetensors"


class InterruptedTrainingError(TrainingError):
    """The training was stopped by a signal; its state is saved."""


def train(task: Task[Any], options: LoopOptions, worker: Worker, on_step: Callable[[int], None] = lambda _: None) -> Progress:
    """Train to the end, from the checkpoint if there is one.

    SIGINT and SIGTERM end the step under way, save and raise; a kill loses at most ``checkpoint_seconds`` of work. The weights
    at the end are the same, to the bit on a CPU, however often it was interrupted.

    Args:
        task: what is trained.
        options: how.
        worker: device and process.
        on_step: told the number of finished steps after every step.

    Returns:
        The progress at the end; ``task.network`` holds the last weights.

    Raises:
        InterruptedTrainingError: after a signal.
        ArrayFileError: the checkpoint is damaged or belongs to something else.
        TrainingError: the loss of an epoch is not a number.
    """
    network = task.network.to(device=worker.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    progress = Progress()
    if options.checkpoint.exists():
        progress = load_checkpoint(options.checkpoint, options.identity, network, task.optimiser)
        progress.average = {name: tensor.to(worker.device) for name, tensor in progress.average.items()}
        progress.loss_sum = progress.loss_sum.to(worker.device)
    elif options.average_decay:
        progress.average = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    if isinstance(task, SteppingTask):
        task.memory.update(progress.memory)
        progress.memory = task.memory
    _refuse_other_steps(progress.step, worker)
    # find_unused_parameters: an embedder has no gradient in a stage without a loss of the embedding
    called: nn.Module = DistributedDataParallel(network, find_unused_parameters=True) if worker.count > 1 else network
    steps = task.epochs * task.steps_per_epoch
    with _stop_signals() as stop, _prefetched(task.batch, progress.step, steps) as batches, _shown(options, worker, progress.step, steps) as show:
        saved = time.monotonic()
        started = (progress.step, saved)
        network.train()
        for step, batch in batches:
            loss = _one_step(task, called, batch, step, options, worker)
            _update_average(progress.average, network, options.average_decay)
            progress.step, progress.loss_sum = step + 1, progress.loss_sum + loss.double()
            if progress.step % task.steps_per_epoch == 0:
                elapsed = time.monotonic() - started[1]
                figures = {"steps_per_second": (progress.step - started[0]) / elapsed}
                _end_epoch(task, network, progress, figures)
                started = (progress.step, time.monotonic())
                show.epoch(progress.history[-1])
                network.train()
            if progress.step % SHOWN_EVERY == 0 or progress.step == steps:
                show.step(progress.step, float(loss))
            on_step(progress.step)
            stopped = _any_process(stop(), worker)
            if stopped or progress.step == steps or time.monotonic() - saved > options.checkpoint_seconds:
                if worker.leads:
                    save_checkpoint(options.checkpoint, options.identity, network, task.optimiser, progress)
                saved = time.monotonic()
            if stopped:
                raise InterruptedTrainingError(
                    f"Stopped at step {progress.step} of {steps}; the state is saved. Run the same command again to go on."
                )
    return progress


def _one_step(task: Task[Any], network: nn.Module, batch: Any, step: int, options: LoopOptions, worker: Worker) -> Tensor:
    torch.manual_seed((options.seed << 32) + step * worker.count + worker.rank)
    _set_rates(task.optimiser, task.rates(step))
    if isinstance(task, SteppingTask):
        return task.take_step(network, batch)
    with arithmetic(options.precision, worker.device):
        loss = task.loss(network, batch)
    task.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    task.optimiser.step()
    return loss.detach()


def _set_rates(optimiser: Optimizer, wanted: Rates) -> None:
    for group in optimiser.param_groups:
        group["lr"] = wanted.learning_rate * group.get("rate_scale", 1.0)
        if "momentum" in group:
            group["momentum"] = wanted.momentum


def _update_average(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    if not average:
        return
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                average[name].lerp_(tensor, 1.0 - decay)
            else:
                average[name].copy_(tensor)


def _end_epoch(task: Task[Any], network: nn.Module, progress: Progress, figures: Figures) -> None:
    epoch = progress.step // task.steps_per_epoch
    score, measured = task.score(network, epoch)
    rate = task.rates(progress.step - 1).learning_rate
    loss = float(progress.loss_sum) / task.steps_per_epoch
    if not math.isfinite(loss):
        raise TrainingError(f"The loss of epoch {epoch} is {loss}: lower the learning rate, such as --set fine_tuning.optimiser.rate=0.001.")
    progress.history.append({"epoch": epoch, "loss": loss, "rate": rate, **figures, **measured})
    progress.loss_sum = torch.zeros((), dtype=torch.float64, device=progress.loss_sum.device)
    if score and (not progress.best_score or score > progress.best_score):
        progress.best_score = score
        progress.best = {name: tensor.clone() for name, tensor in network.state_dict().items()}


@contextmanager
def _prefetched(make: Callable[[int], Batch], first: int, end: int) -> Iterator[Iterator[tuple[int, Batch]]]:
    """Batches in order, the next one being made while one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:

        def batches() -> Iterator[tuple[int, Batch]]:
            ahead: Future[Batch] | None = pool.submit(make, first) if first < end else None
            for step in range(first, end):
                assert ahead is not None
                batch = ahead.result()
                ahead = pool.submit(make, step + 1) if step + 1 < end else None
                yield step, batch

        yield batches()


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; a second SIGINT interrupts at once."""
    received: list[int] = []

    def note(number: int, _: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _refuse_other_steps(step: int, worker: Worker) -> None:
    if worker.count == 1:
        return
    steps = [torch.zeros(1, dtype=torch.int64, device=worker.device) for _ in range(worker.count)]
    distributed.all_gather(steps, torch.tensor([step], device=worker.device))
    if len({int(s) for s in steps}) > 1:
        raise TrainingError(f"The processes are at steps {[int(s) for s in steps]}: machines that train together must share the folder of --runs.")


def _any_process(flag: bool, worker: Worker) -> bool:
    if worker.count == 1:
        return flag
    flags = torch.tensor([int(flag)], device=worker.device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags.item())


class _Show:
    """Progress bar and TensorBoard logs of the process that leads; nothing in the others."""

    def __init__(self, bar: Bar | None, title: str, steps: int, done: int, writer: Any) -> None:
        self._bar, self._writer, self._words = bar, writer, ""
        self._task = bar.add_task(title, total=steps, completed=done, words="") if bar else None

    def step(self, step: int, loss: float) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, words=f"loss {loss:.4f} {self._words}")

    def epoch(self, figures: Figures) -> None:
        if self._writer is None:
            return
        for name, value in figures.items():
            self._writer.add_scalar(name, value, int(figures["epoch"]))
        self._writer.flush()
        self._words = ", ".join(f"{name} {value:.4f}" for name, value in figures.items() if name.startswith("validation"))


@contextmanager
def _shown(options: LoopOptions, worker: Worker, done: int, steps: int) -> Iterator[_Show]:
    if not worker.leads:
        yield _Show(None, options.title, steps, done, None)
        return
    from torch.utils.tensorboard import SummaryWriter

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[words]}"))
    writer = SummaryWriter(str(options.folder / "tensorboard"))
    try:
        with Bar(*columns) as bar:
            yield _Show(bar, options.title, steps, done, writer)
    finally:
        writer.close()
