"""Score a batch on two Ray nodes of this machine, one of which is killed under work.

    python -m tests.chaos.ray_nodes --images 20000

Everything runs in a network of its own, because Ray listens on every address. Its rows are compared with those of an undisturbed
batch of the same archive.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from clients.batch.merging import RESULTS
from clients.batch.plan import read_plan
from clients.batch.status import StatusReader
from clients.batch.store import Store
from tests.chaos.batch import command, make_archive, report, run_quietly, working_folder
from tests.network import in_own_network
from tests.paths import ROOT
from tests.running import eventually

_INSIDE: Final = "DL4ALL_TEST_OWN_NETWORK"
_LIMIT_SECONDS: Final = 14_400.0
_START_SECONDS: Final = 180.0
_KILL_AT: Final = 0.3
_OBJECT_STORE: Final = 100 * 1024 * 1024


def descendants(process: int) -> list[int]:
    """A process and all that it has started, those that have left its session among them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


class Node:
    """A Ray node.

    Args:
        arguments: of ``ray start``.
    """

    def __init__(self, *arguments: str) -> None:
        program = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1", "--node-ip-address=127.0.0.1"]
        options = [f"--object-store-memory={_OBJECT_STORE}", "--disable-usage-stats", *arguments]
        self.process = subprocess.Popen([*program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self.killed = 0

    def kill(self) -> None:
        """Kill all its processes."""
        for pid in descendants(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.killed += 1
        self.process.wait()


def disturbed(archive: Path, out: Path, shard_size: int) -> dict[str, object]:
    """Run the batch on two nodes; the second one is killed when a share of the images is done."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), DL4ALL_WORKERS="1")
    head = Node("--head", f"--port={port}", "--include-dashboard=false")
    nodes = [head]
    try:
        eventually(lambda: _listens(port), _START_SECONDS, "the head of the cluster listens")
        nodes.append(Node(f"--address=127.0.0.1:{port}"))
        arguments = ("run", str(archive), "--out", str(out), "--shard-size", str(shard_size), "--engine", "ray", "--cluster", f"127.0.0.1:{port}")
        driver = subprocess.Popen(command(*arguments), cwd=ROOT)
        killed_at, end = None, time.monotonic() + _LIMIT_SECONDS
        while driver.poll() is None:
            assert time.monotonic() < end, "not finished in time"
            time.sleep(0.2)
            store = Store(str(out))
            if killed_at is None and store.read("plan.json") is not None:
                status = StatusReader(store, read_plan(store)).read()
                held = sum(shard.is_held for shard in status.shards)
                if status.done >= _KILL_AT * status.images and held == len(nodes):
                    nodes[1].kill()
                    killed_at = status.done
        assert driver.returncode == 0, f"the driver ended with status {driver.returncode}"
        assert killed_at is not None, "no node was killed"
        return {"images done when a node was killed": killed_at, "processes killed": nodes[1].killed}
    finally:
        for node in reversed(nodes):
            node.kill()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--shard-size", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="of ``tests.chaos.batch``, to compare with its undisturbed batch. Default: a temporary one")
    given = parser.parse_args()
    if _INSIDE not in os.environ:
        inside = in_own_network([sys.executable, "-m", "tests.chaos.ray_nodes", *sys.argv[1:]])
        raise SystemExit(subprocess.run(inside, cwd=ROOT, env={**os.environ, _INSIDE: "1"}, check=False).returncode)
    with working_folder(given.folder) as folder:
        if not (folder / "archive").exists():
            make_archive(folder, given.images)
        started = time.monotonic()
        record = disturbed(folder / "archive", folder / "ray", given.shard_size)
        print(json.dumps({"two nodes, seconds": round(time.monotonic() - started), **record}), flush=True)
        if not (folder / "quiet" / RESULTS).exists():
            run_quietly(["run", str(folder / "archive"), "--out", str(folder / "quiet")], _LIMIT_SECONDS)
        if not report(given.images, folder / "quiet", folder / "ray", leave_out=("engine",)):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
