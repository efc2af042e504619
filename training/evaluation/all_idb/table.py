"""The tables of ALL-IDB as Markdown, from the record alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from training.evaluation.all_idb.confounders import CAMERA, COLOURS, SIZE
from training.evaluation.all_idb.honest import NETWORKS
from training.evaluation.all_idb.measure import mean_and_deviation
from training.evaluation.all_idb.protocols import FIGURES
from training.evaluation.all_idb.record import Record
from training.evaluation.all_idb.rows import ROWS, Row

_NONE: Final = "-"
_BASELINES: Final = (CAMERA, COLOURS, SIZE)


def published_table(record: Record) -> str:
    """The papers' protocols: published, reproduced, and what needs no morphology, by the same splits; then the Canon alone."""
    lines = [
        "| system | protocol | published, % | reproduced, % | camera alone, % | colours alone, % | size alone, % "
        "| Canon alone: AUC of the network | best of colours and size there | beats it | differs from the paper |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    found = record.get("published", {})
    lines += [_published_line(row, found[row.name]) for row in ROWS if row.name in found]
    return "\n".join(lines)


def _published_line(row: Row, figures: Mapping[str, Any]) -> str:
    baselines = figures["baselines"]
    network = mean_of(figures["network"], "canon_auc")
    rivals = {name: value for name in (COLOURS, SIZE) if name in baselines and (value := mean_of(baselines[name], "canon_auc")) is not None}
    best = max(rivals, key=lambda name: rivals[name], default="")
    notes = [row.differs, "" if figures["full"] else f"cut: {row.cut}" if row.cut else "", *_further(figures["further"])]
    cells = [
        row.system,
        row.protocol,
        row.published or "not found",
        _percent(figures["network"]),
        *(_percent(baselines[name]) if name in baselines else _NONE for name in _BASELINES),
        _number(network),
        f"{best}: {_number(rivals[best])}" if best else _NONE,
        _beats(network, rivals.get(best)),
        "; ".join(note for note in notes if note) or "nothing",
    ]
    return f"| {' | '.join(cells)} |"


def _further(further: Mapping[str, Sequence[float]]) -> Iterable[str]:
    for name, values in further.items():
        mean, deviation = mean_and_deviation(values)
        scale, unit = (1.0, "") if name == "focus threshold" else (100.0, " %")
        yield f"{name}: {mean * scale:.2f} +- {deviation * scale:.2f}{unit}"


def honest_table(record: Record) -> str:
    """Sessions and blocks whole: networks over three seeds, frozen features, and what needs no morphology; AUC with an interval by block."""
    baselines, networks = record.get("baselines", {}).get("all", {}), record.get("honest", {})
    frozen = record.get("frozen", {}).get("all", {}).get("rows", [])
    every = [*(f["figures"] for f in [*baselines.values(), *networks.values()]), *(row["honest"] for row in frozen)]
    counts: Sequence[Mapping[str, Any]] = every[0] if every else []
    heads = [f"{f['title']} ({f['blasts']} blasts, {f['normals']} normal)" for f in counts]
    lines = [f"| | {' | '.join(heads)} | smudged cells called blasts |", f"|---|{'---|' * (len(heads) + 1)}"]
    best = [_best(baselines, i) for i in range(len(heads))]
    lines += [f"| {name} | {' | '.join(_interval(f['auc']) for f in b['figures'])} | |" for name, b in baselines.items()]
    for network in NETWORKS:
        if network.name in networks:
            figures = networks[network.name]
            cells = [_against(f["auc"], rival) for f, rival in zip(figures["figures"], best, strict=True)]
            smudged = _share(figures["smudged_called_blast"], figures["smudged"])
            lines.append(f"| {network.title}, trained, {len(figures['figures'][0]['by_seed'])} seeds | {' | '.join(cells)} | {smudged} |")
    for row in frozen:
        cells = [_against(f["auc"], rival) for f, rival in zip(row["honest"], best, strict=True)]
        smudged = _share(row["smudged"]["called_blast"], row["smudged"]["cells"])
        lines.append(f"| {row['features']}, frozen, {row['classifier']} | {' | '.join(cells)} | {smudged} |")
    return "\n".join(lines)


def seeds_table(record: Record) -> str:
    """AUC of every seed of the trained networks."""
    lines = [f"| AUC by seed | {' | '.join(f.title for f in FIGURES)} |", f"|---|{'---|' * len(FIGURES)}"]
    for network in NETWORKS:
        if network.name in record.get("honest", {}):
            cells = [", ".join(_number(v) for v in f["by_seed"]) for f in record["honest"][network.name]["figures"]]
            lines.append(f"| {network.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def frozen_table(record: Record) -> str:
    """Frozen features by the papers' protocol, and a linear layer that learned on cells of AML patients."""
    figures = record.get("frozen", {}).get("all")
    if figures is None:
        return ""
    lines = [
        "| features | classifier | accuracy on ALL-IDB2, 10 random halves, % | AUC, both cameras | AUC, Canon alone | crops without a located cell |",
        "|---|---|---|---|---|---|",
    ]
    for row in figures["rows"]:
        papers = row["papers"]
        accuracy = f"{100 * papers['accuracy']:.2f} +- {100 * papers['accuracy_deviation']:.2f}"
        cells = [row["features"], row["classifier"], accuracy, _number(papers["auc"]), _number(papers["canon_auc"]), str(papers["left_out"])]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| ImageNet features, linear layer learned on cells of AML patients | AUC | blasts | normal |", "|---|---|---|---|"]
    lines += [f"| {f['title']} | {_interval(f['auc'])} | {f['blasts']} | {f['normals']} |" for f in figures["linear_layer"]]
    return "\n".join(lines)


def all_tables(record: Record) -> str:
    """Everything that is recorded."""
    parts = [published_table(record), honest_table(record), seeds_table(record), frozen_table(record)]
    return "\n\n".join(part for part in parts if part)


def _best(baselines: Mapping[str, Any], figure: int) -> tuple[str, float] | None:
    values = {name: value for name, b in baselines.items() if (value := b["figures"][figure]["auc"]["value"]) is not None}
    name = max(values, key=lambda n: values[n], default=None)
    return None if name is None else (name, values[name])


def _against(auc: Mapping[str, float | None], rival: tuple[str, float] | None) -> str:
    value = auc["value"]
    if rival is None or value is None or value > rival[1]:
        return _interval(auc)
    return f"{_interval(auc)}, does not beat {rival[0]}"


def _beats(value: float | None, rival: float | None) -> str:
    if value is None or rival is None:
        return _NONE
    return "yes" if value > rival else "no"


def mean_of(results: Sequence[Mapping[str, float | None]], name: str) -> float | None:
    """Mean of a figure over repetitions; None where none has it."""
    values = [v for r in results if (v := r[name]) is not None]
    return mean_and_deviation(values)[0] if values else None


def _percent(results: Sequence[Mapping[str, float]]) -> str:
    mean, deviation = mean_and_deviation([r["accuracy"] for r in results])
    return f"{100 * mean:.2f} +- {100 * deviation:.2f}" if len(results) > 1 else f"{100 * mean:.2f}"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _interval(auc: Mapping[str, float | None]) -> str:
    return f"{_number(auc['value'])} [{_number(auc['low'])}, {_number(auc['high'])}]" if auc["value"] is not None else _NONE


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else _NONE
