"""Write what Triton reads of a network: ``config.pbtxt`` for a GPU, ``configs/cpu.pbtxt`` for the CPU.

The parameters are those of Triton's native ``onnxruntime`` backend; the Python-based one in ``deploy/triton`` honours
the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import onnx

from services.common.checks import MAX_CELLS_PER_CALL
from services.common.model_repository import ANY_SIDE, BACKEND, CONFIG_FILE, CPU_CONFIG_FILE, SHA256
from services.common.releases import sha256_of
from training.export.onnx_model import INPUT

GPU_QUEUE_DELAY_MICROSECONDS: Final = 500
CPU_QUEUE_DELAY_MICROSECONDS: Final = 0
"""How long Triton waits for other images' cells before it starts a batch. On the CPU waiting costs throughput (docs/benchmarks.md): what
comes while the instances are busy makes the next batch anyway."""
QUEUE_TIMEOUT_MICROSECONDS: Final = 60_000_000
"""How long a request may wait; callers shorten it to the time that they have left."""
GPU_MEMORY_LIMIT: Final = 2 * 1024**3
"""Bytes that ONNX Runtime may take per model and GPU; it does not give memory back."""

_GPU: Final[Mapping[str, str]] = {
    "cudnn_conv_algo_search": "1",  # heuristic: warm-up of every batch size in seconds, not minutes
    "gpu_mem_limit": str(GPU_MEMORY_LIMIT),
    "arena_extend_strategy": "1",  # grow by what is asked for, not by powers of two
}
_CPU: Final[Mapping[str, str]] = {
    "intra_op_thread_count": "1",
    "inter_op_thread_count": "1",
}


def write_model_configs(
    folder: Path, path: Path, side: int, max_batch: int = MAX_CELLS_PER_CALL, cpu_file: str | None = None, *, any_side: bool = False
) -> None:
    """Write both configurations of an exported network.

    Args:
        folder: folder of the model in the model repository; its name is the model's.
        path: the ONNX file, of which names and shapes of the outputs are read.
        side: side of the input in px.
        max_batch: largest batch of one inference. On a GPU every size up to it is warmed up, because each has algorithms of its own; on a CPU the
            powers of two, which fill the arena, so that a repository of many models starts in seconds.
        cpu_file: another file that the CPU serves (int8), in the same version folder.
        any_side: whether images of any side are taken; ``side`` is then that of the warm-up.
    """
    shapes = {o.name: [int(d.dim_value) or -1 for d in o.type.tensor_type.shape.dim][1:] for o in onnx.load(str(path)).graph.output}
    for_cpu = path if cpu_file is None else path.with_name(cpu_file)
    (folder / CONFIG_FILE).write_text(
        _text(
            folder.name,
            path,
            shapes,
            (ANY_SIDE if any_side else side, side),
            range(1, max_batch + 1),
            "KIND_GPU",
            1,
            GPU_QUEUE_DELAY_MICROSECONDS,
            _GPU,
        ),
        encoding="utf-8",
    )
    cpu = folder / CPU_CONFIG_FILE
    cpu.parent.mkdir(exist_ok=True)
    powers = [2**k for k in range(max_batch.bit_length()) if 2**k < max_batch]
    cpu.write_text(
        _text(
            folder.name,
            for_cpu,
            shapes,
            (ANY_SIDE if any_side else side, side),
            [*powers, max_batch],
            "KIND_CPU",
            2,
            CPU_QUEUE_DELAY_MICROSECONDS,
            _CPU,
        ),
        encoding="utf-8",
    )


def _text(
    name: str,
    file: Path,
    shapes: Mapping[str, list[int]],
    sides: tuple[int, int],
    warmed_up: Sequence[int],
    kind: str,
    instances: int,
    delay: int,
    parameters: Mapping[str, str],
) -> str:
    side, warm_side = sides
    outputs = ",\n".join(f'  {{ name: "{n}", data_type: TYPE_FP32, dims: {shape} }}' for n, shape in shapes.items())
    settings = "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in {**parameters, SHA256: sha256_of(file)}.items()
    )
    sample = f'inputs {{ key: "{INPUT}" value {{ data_type: TYPE_UINT8, dims: [{warm_side}, {warm_side}, 3], random_data: true }} }}'
    warm_up = "\n".join(f'model_warmup {{ name: "batch of {n}" batch_size: {n} {sample} }}' for n in warmed_up)
    return f"""name: "{name}"
backend: "{BACKEND}"
max_batch_size: {max(warmed_up)}
default_model_filename: "{file.name}"
input [
  {{ name: "{INPUT}", data_type: TYPE_UINT8, format: FORMAT_NONE, dims: [{side}, {side}, 3] }}
]
output [
{outputs}
]
instance_group [ {{ kind: {kind}, count: {instances} }} ]
dynamic_batching {{
  max_queue_delay_microseconds: {delay}
  default_queue_policy {{ timeout_action: REJECT, default_timeout_microseconds: {QUEUE_TIMEOUT_MICROSECONDS}, allow_timeout_override: true }}
}}
{settings}
{warm_up}
"""
