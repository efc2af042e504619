"""The papers' experiments on ALL-IDB as rows of one table: what each trains, what stands in for what, and how a short form is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from training.recipes.config import PUBLISHED, Recipe, load_recipe

LITE0: Final = ("network.architecture=efficientnet_lite0",)
IMAGENET: Final = (*LITE0, "start=imagenet")
CROP: Final = 256
SHORT_SIDE: Final = 96
STAND_IN: Final = "Lite0 with ImageNet weights stands in for the paper's networks"


@dataclass(frozen=True)
class Row:
    """One experiment.

    Attributes:
        name: of its run, and what ``--only`` takes.
        system: for people.
        protocol: how the paper splits, for people.
        recipe: whose preset ``published`` it is.
        changes: switches that make the experiment; they hold in the full form too.
        cuts: further switches of the short form; none where it is never cut.
        cut: what they cut, for people.
        differs: what differs from the paper in any form, for people; empty if nothing.
        published: accuracy on test that was published, for people; empty if none is known.
        sharpens: None, or whether crops are sharpened with a threshold that each training half chooses (system 1).
        needs_checkpoint: whether it starts from the published file of ALLNet.
        source: data set that it learns before or beside the cells; empty for none.
    """

    name: str
    system: str
    protocol: str
    recipe: str
    changes: tuple[str, ...]
    cuts: tuple[str, ...] = ()
    cut: str = ""
    differs: str = ""
    published: str = ""
    sharpens: bool | None = None
    needs_checkpoint: bool = False
    source: str = ""

    def load(self, *, full: bool) -> Recipe:
        """The recipe in its full or its short form."""
        return load_recipe(self.recipe, PUBLISHED, [*self.changes, *(() if full else self.cuts)])

    @property
    def learns_patches(self) -> bool:
        """Whether it labels patches of fields, not cells."""
        return self.recipe == "all_idb_patches"


def _side(stage: str, side: int, kind: str = "center_crop", crop: int = CROP) -> str:
    return f'{stage}.input={{ kind = "{kind}", center_crop = {crop}, side = {side} }}'


def _sharpening(sharpens: bool) -> Row:
    return Row(
        name=f"s1-{'sharpened' if sharpens else 'original'}",
        system=f"1 adaptive unsharpening, {'sharpened' if sharpens else 'original'} crops",
        protocol="10 random halves",
        recipe="adaptive_unsharpening",
        changes=(*IMAGENET, "fine_tuning.normalisation=channel"),
        cuts=(
            f'fine_tuning.input={{ kind = "legacy_sharpened", side = {SHORT_SIDE}, threshold = "tuned_legacy" }}',
            "fine_tuning.epochs=10",
            "fine_tuning.optimiser.rate=1e-2",
        ),
        cut="96 px for 224, 10 epochs at a hundred times the rate for 100",
        differs=STAND_IN,
        sharpens=sharpens,
    )


def _interleaved(variant: str, *changes: str) -> Row:
    return Row(
        name=f"s5-{variant}",
        system=f"5 DL4ALL, {variant}",
        protocol="70/20/10, once",
        recipe="dl4all_cnn",
        changes=(*IMAGENET, f"interleaving.variant={variant}", "interleaving.level=1", _side("fine_tuning", 224), *changes),
        cuts=(
            _side("fine_tuning", SHORT_SIDE),
            _side("interleaving", SHORT_SIDE, crop=0),
            "fine_tuning.epochs=10",
            "fine_tuning.optimiser.rate=1e-3",
            "interleaving.readaptation=20",
        ),
        cut="96 px for 224, 10 epochs at five times the rate for 100",
        differs=f"ALL-IDB2 is the target, tissue tiles (LC25000) are the source in place of ADP; {STAND_IN}",
        source="lc25000_tiles",
    )


_S2_CUTS: Final = (_side("fine_tuning", SHORT_SIDE), "fine_tuning.schedule.step_epochs=2")
_S2_SOURCE_CUTS: Final = (_side("pretraining", SHORT_SIDE, crop=0), "pretraining.epochs=3", "pretraining.schedule.period_epochs=2")


def _histotnet(name: str, words: str, changes: tuple[str, ...], *, tissue: bool, epochs: int = 8) -> Row:
    source = ("pretraining.level=1",) if tissue else ("pretraining.enabled=false",)
    return Row(
        name=f"s2-{name}",
        system=f"2 HistoTNet, {words}",
        protocol="10 x 40/10/50",
        recipe="histotnet",
        changes=(*changes, *source),
        cuts=(*_S2_CUTS, f"fine_tuning.epochs={epochs}", *(_S2_SOURCE_CUTS if tissue else ())),
        cut=f"96 px for 224, {epochs} epochs for 100" + (", 3 of tissue for 80" if tissue else ""),
        differs="tissue is LC25000 in place of ADP" if tissue else "",
        source="lc25000_tiles" if tissue else "",
    )


def _patches(name: str, words: str, changes: tuple[str, ...]) -> Row:
    return Row(
        name=f"s4-{name}",
        system="4 ALL-IDB Patches",
        protocol=words,
        recipe="all_idb_patches",
        changes=changes,
        cuts=(
            "network.width=16",
            _side("pretraining", 128, crop=0),
            "pretraining.epochs=5",
            _side("warm_up", 128),
            "warm_up.epochs=1",
            _side("fine_tuning", 128),
            "fine_tuning.epochs=5",
            "fine_tuning.optimiser.rate=1e-3",
        ),
        cut="a quarter of the channels, 128 px for 224, 5 epochs at ten times the rate for 100, 5 of tissue for 80",
        differs="patches of 61 of the 108 fields; tissue is LC25000 in place of ADP",
        source="lc25000_tiles",
    )


ROWS: Final = (
    Row(
        name="s3-allnet-adp",
        system="3 ALLNet ResNet18, level 1",
        protocol="5 x 40/10/50",
        recipe="allnet",
        changes=("network.architecture=resnet18_lbp", "start=allnet", "pretraining.enabled=false"),
        published="97.85 +- 0.58 (second hand)",
        needs_checkpoint=True,
    ),
    _sharpening(False),
    _sharpening(True),
    _histotnet("resnet18-tissue", "ResNet18 from tissue", (), tissue=True, epochs=5),
    _histotnet("lite0-scratch", "Lite0 from scratch", (*LITE0, "fine_tuning.normalisation=channel"), tissue=False),
    _histotnet("lite0-tissue", "Lite0 from tissue", (*LITE0, "fine_tuning.normalisation=channel"), tissue=True),
    _histotnet("lite0-imagenet", "Lite0 from ImageNet", (*IMAGENET, "fine_tuning.normalisation=channel"), tissue=False),
    _histotnet("lite0-imagenet-tissue", "Lite0 from ImageNet, then tissue", (*IMAGENET, "fine_tuning.normalisation=channel"), tissue=True),
    _patches("folds", "5 folds of patches, fields part", ("pretraining.level=1",)),
    _patches("fields", "by field", ("pretraining.level=1", "split.by=group", "fine_tuning.selection=last")),
    _interleaved("regular", "interleaving.part=all"),
    _interleaved("self", "interleaving.class_weights=inverse_count", "interleaving.proportional=true", "interleaving.part=all"),
    _interleaved("greedy_legacy", "interleaving.proportional=true", "interleaving.part=all"),
    Row(
        name="s6-dss",
        system="6 DSS-XAI, class nothing, triplets",
        protocol="5 shuffled folds",
        recipe="dss",
        changes=(
            *IMAGENET,
            "pretraining.enabled=false",
            "injection.clusters=1",
            "fine_tuning.orthogonality_weight=0",
            "warm_up.normalisation=channel",
            "fine_tuning.normalisation=channel",
        ),
        cuts=(
            f'warm_up.input={{ kind = "legacy_sharpened", side = {SHORT_SIDE}, threshold = "tuned_legacy" }}',
            f'fine_tuning.input={{ kind = "legacy_sharpened", side = {SHORT_SIDE}, threshold = "tuned_legacy" }}',
            "fine_tuning.epochs=10",
            "fine_tuning.schedule.step_epochs=3",
        ),
        cut="96 px for 224, 10 epochs for 90",
        differs=f"{STAND_IN}; lymphoblasts are one class; crops without a cell are learned from, not tested",
    ),
)
"""All experiments, in the order of the table; the first is never cut."""
