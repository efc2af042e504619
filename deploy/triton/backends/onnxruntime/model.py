"""The backend ``onnxruntime`` for a Triton that lacks the native one: a Python-based backend that runs ONNX Runtime on the CPU.

Triton starts one process per model instance and hands it batches that it has put together from several requests. The
native backend of NVIDIA's image reads the same ``config.pbtxt`` with the same parameters, so one model repository
serves both.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

_ORPHAN_CHECK_SECONDS = 1.0
_SHARED_MEMORY = "/dev/shm/dl4all_triton_"


class TritonPythonModel:
    """One instance of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Leave the configuration as it is written."""
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the ONNX file that the configuration names."""
        _end_with_parent()
        _keep_shared_memory_private()
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", "1"))
        options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", "1"))
        options.enable_cpu_mem_arena = parameters.get("enable_mem_arena", "1") == "1"
        options.log_severity_level = 3
        self._run_options = onnxruntime.RunOptions()
        shrink = parameters.get("memory.enable_memory_arena_shrinkage")
        if shrink:
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", shrink)
        path = folder / (config.get("default_model_filename") or "model.onnx")
        _check(path, parameters.get("sha256"))
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [given["name"] for given in config["input"]]
        self._outputs = [given["name"] for given in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run all requests as one batch; each gets its own part of every output that it asked for.

        A request that was cancelled while it waited is not run.
        """
        responses: list[Any] = [None] * len(requests)
        waiting = []
        for number, request in enumerate(requests):
            if request.is_cancelled():
                responses[number] = pb_utils.InferenceResponse(error=pb_utils.TritonError("cancelled", pb_utils.TritonError.CANCELLED))
            else:
                waiting.append(number)
        if waiting:
            for number, answer in zip(waiting, self._answers([requests[n] for n in waiting]), strict=True):
                responses[number] = answer
        return responses

    def _answers(self, requests: list[Any]) -> list[Any]:
        given = {name: [pb_utils.get_input_tensor_by_name(r, name).as_numpy() for r in requests] for name in self._inputs}
        sizes = [len(array) for array in given[self._inputs[0]]]
        wanted = [name for name in self._outputs if any(name in r.requested_output_names() for r in requests)]
        try:
            batch = {name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for name, arrays in given.items()}
            results = dict(zip(wanted, self._session.run(wanted, batch, self._run_options), strict=True))
        except Exception as error:
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))) for _ in requests]
        answers, start = [], 0
        for request, size in zip(requests, sizes, strict=True):
            requested = request.requested_output_names()
            tensors = [pb_utils.Tensor(name, np.ascontiguousarray(results[name][start : start + size])) for name in wanted if name in requested]
            answers.append(pb_utils.InferenceResponse(output_tensors=tensors))
            start += size
        return answers


def _check(path: Path, sha256: str | None) -> None:
    """Refuse a file that is not the one that the configuration states."""
    if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise pb_utils.TritonModelException(f"{path} does not match the checksum that its configuration states")


def _keep_shared_memory_private() -> None:
    """Let this user only read the shared memory between Triton and this process, which will hold pixels.

    Triton makes it readable for everybody, whatever the mask of its process is.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.rpartition(" ")[2]
        if path.startswith(_SHARED_MEMORY):
            Path(path).chmod(0o600)


def _end_with_parent() -> None:
    """End this process when Triton is gone: a Triton that is killed cannot end its instances."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
