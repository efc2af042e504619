"""Runs shards as tasks of a Ray cluster. Ray keeps nothing that must last: a task that is lost is run again, and goes on from its shard.

Ray listens on every address of its machine, so that a token is always needed (``RAY_AUTH_MODE=token``); the dashboard stays off.
"""

from __future__ import annotations

import os
import secrets
from typing import Any, Final

from clients.batch.engines.base import OnLook
from clients.batch.errors import BatchError, GatewayNotReadyError
from clients.batch.plan import Plan
from clients.batch.shard_file import finished_name
from clients.batch.store import Store
from clients.batch.worker import NOT_READY_STATUS, Work, run

RETRIES: Final = 5
"""How often Ray starts a shard again whose worker or node is lost."""
OBJECT_STORE_BYTES: Final = 128 * 1024 * 1024
_LOOK_SECONDS: Final = 0.25


class RayEngine:
    """Shards as tasks of a Ray cluster.

    Args:
        cluster: address of a running cluster, such as ``10.0.0.7:6379``; None for one that is started here and ends with this process.
        workers: tasks at once on a cluster that is started here; each takes one CPU of Ray.

    Raises:
        BatchError: Ray is not installed.
    """

    def __init__(self, cluster: str | None, workers: int) -> None:
        self._cluster = cluster
        self._workers = workers
        os.environ["RAY_AUTH_MODE"] = "token"
        if cluster is None:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise BatchError("The engine ray needs the extra `ray` of the server's wheel; see docs/install.md.") from error
        self._ray: Any = ray

    def run(self, plan: Plan, work: Work, on_look: OnLook) -> None:
        """See ``Engine``."""
        store = Store(work.location)
        self._open()
        try:
            task = self._ray.remote(max_retries=RETRIES, num_cpus=1, retry_exceptions=False)(_run_shard)
            waiting = [task.remote(work, shard) for shard in range(plan.shards) if finished_name(store, shard) is None]
            while waiting:
                ready, waiting = self._ray.wait(waiting, num_returns=1, timeout=_LOOK_SECONDS)
                on_look()
                for result in ready:
                    self._raise_if_failed(result)
        finally:
            self._ray.shutdown()
            on_look()

    def _open(self) -> None:
        try:
            if self._cluster is not None:
                self._ray.init(address=self._cluster, log_to_driver=False, configure_logging=False)
            else:
                self._ray.init(
                    address="local",
                    num_cpus=self._workers,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    log_to_driver=False,
                    configure_logging=False,
                    _node_ip_address="127.0.0.1",
                )
        except Exception as error:
            raise BatchError(f"Ray cannot be used: {error}") from error

    def _raise_if_failed(self, result: Any) -> None:
        try:
            status, words = self._ray.get(result)
        except self._ray.exceptions.RayError as error:
            raise BatchError(f"Ray gave a shard up after {RETRIES} retries: {error}") from error
        if status == NOT_READY_STATUS:
            raise GatewayNotReadyError(words)
        if status:
            raise BatchError(words or f"A worker ended with status {status}.")


def _run_shard(work: Work, shard: int) -> tuple[int, str]:
    """A task: one shard; returns the status of the worker and what it said."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = run(work, shard)
    return status, said.getvalue().strip()
