"""Fuzz for a stated time: all property tests, again and again, each round with another seed and many examples.

    python -m tests.hostile.fuzz --minutes 20

Stops at the first round that fails; its output names the seed, with which the failure comes again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import Final

from tests.paths import ROOT

_ROUND_EXAMPLES: Final = 400


def property_tests() -> list[str]:
    """Test files that draw their inputs."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "from hypothesis import" in file.read_text(encoding="utf-8")]


def main() -> int:
    """Run rounds until the time is over; returns the status of the last one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="when no further round begins (default: 20)")
    parser.add_argument("--examples", type=int, default=_ROUND_EXAMPLES, help=f"of each property in a round (default: {_ROUND_EXAMPLES})")
    options = parser.parse_args()
    end, seed, tests = time.monotonic() + 60.0 * options.minutes, int(time.time()), property_tests()
    rounds = 0
    while rounds == 0 or time.monotonic() < end:
        print(f"round {rounds + 1}: {len(tests)} files, {options.examples} examples of each property, seed {seed}", flush=True)
        command = [sys.executable, "-m", "pytest", "--quiet", "--exitfirst", "-p", "no:cacheprovider", f"--hypothesis-seed={seed}", *tests]
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, "DL4ALL_FUZZ_EXAMPLES": str(options.examples)}, check=False).returncode
        if status:
            return status
        rounds, seed = rounds + 1, seed + 1
    print(f"{rounds} rounds, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
