"""Sum up the answers of a release for images of other sources: a stress test, not evidence.

    dl4all diagnose DIR... --json | dl4all study other-sources

Reads the answers of the command line, one JSON object a line, and prints one line per folder.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from training.command import explained, program_parser


@dataclass
class SourceSummary:
    """Answers for the images of one folder."""

    findings: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    cells: int = 0
    suspected: int = 0
    indeterminate: int = 0

    def add(self, answer: dict) -> None:
        """Count one answer; failures count as a finding FAILED."""
        if "error" in answer:
            self.findings["FAILED"] += 1
            return
        diagnosis = answer["diagnosis"]
        self.findings[diagnosis["finding"]] += 1
        self.cells += diagnosis["counts"]["total"]
        self.suspected += diagnosis["counts"]["suspected"]
        self.indeterminate += diagnosis["counts"]["indeterminate"]
        self.reasons.update(reason for cell in diagnosis["cells"] for reason in cell["reasons"])

    def __str__(self) -> str:
        findings = ", ".join(f"{count} {name}" for name, count in self.findings.most_common())
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common(5))
        return f"{findings}; {self.cells} cells, {self.suspected} suspected, {self.indeterminate} indeterminate; {reasons}"


def summarise(lines: Iterable[str]) -> dict[str, SourceSummary]:
    """Sum up answers by the last two folders of their paths."""
    summaries: dict[str, SourceSummary] = {}
    for line in lines:
        answer = json.loads(line)
        folder = "/".join(PurePath(answer["path"]).parts[-3:-1])
        summaries.setdefault(folder, SourceSummary()).add(answer)
    return summaries


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per folder."""
    program_parser("other-sources", __doc__).parse_args(arguments)
    for folder, summary in sorted(summarise(sys.stdin).items()):
        print(f"{folder}: {summary}")


if __name__ == "__main__":
    main()
