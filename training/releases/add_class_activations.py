"""Add class activations to a cell network that was exported without them: the same file, one more output, no training.

    dl4all study class-activations plain_resnet_128

If one linear head follows pooled features, the logits are the mean of the head over places, and the head is in the file already. Logits, embeddings
and place embeddings stay the same to the bit. Every release that names the model then states it. Do not run it while the model is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from services.common.engines.base import PLACE_EMBEDDINGS
from services.common.engines.onnx_runtime import open_session
from services.common.model_repository import CONFIG_FILE, CPU_CONFIG_FILE
from services.common.releases import RELEASE_FILE, Release, ReleaseStore, Role, sha256_of
from training.command import explained, program_parser
from training.errors import GateError, RecipeError
from training.export.model_configs import write_model_configs
from training.export.onnx_model import ACTIVATIONS, INPUT, LOGITS, PARITY, difference
from training.releases.write import restate, restored_on_failure

_OWN: Final = f"{ACTIVATIONS}/"


def with_class_activations(model: ModelProto) -> ModelProto:
    """Add the output ``class_activations``, float32 (N, h, w, classes).

    Raises:
        GateError: the logits are not those of one linear head on pooled features, divided by a temperature; or the output is there already.
    """
    changed = ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    if any(output.name == ACTIVATIONS for output in graph.output):
        raise GateError(f"The network gives {ACTIVATIONS} already.")
    divided = _expect(made_by, LOGITS, "Div")
    head = _expect(made_by, divided.input[0], "Gemm")
    pooled = _expect(made_by, head.input[0], "ReduceMean")
    attributes = {a.name: helper.get_attribute_value(a) for a in head.attribute}
    plain = attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
    places = next((output for output in graph.output if output.name == PLACE_EMBEDDINGS), None)
    if not plain or len(head.input) != 3 or not {*head.input[1:]} <= set(constants) or places is None:
        raise GateError(f"The head of the network is not a linear layer with weight and bias of its own, or it gives no {PLACE_EMBEDDINGS}.")
    weight = numpy_helper.to_array(constants[head.input[1]])
    by_class = weight.T if attributes.get("transB", 0) else weight
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(by_class), f"{_OWN}weight"))
    steps = ("places", "weighed", "sums")
    graph.node.extend(
        [
            helper.make_node("Transpose", [pooled.input[0]], [_OWN + steps[0]], perm=[0, 2, 3, 1]),
            helper.make_node("MatMul", [_OWN + steps[0], f"{_OWN}weight"], [_OWN + steps[1]]),
            helper.make_node("Add", [_OWN + steps[1], head.input[2]], [_OWN + steps[2]]),
            helper.make_node("Div", [_OWN + steps[2], divided.input[1]], [ACTIVATIONS]),
        ]
    )
    count, rows, columns, _ = places.type.tensor_type.shape.dim
    shape = [count.dim_param or count.dim_value, rows.dim_value, columns.dim_value, by_class.shape[1]]
    graph.output.append(helper.make_tensor_value_info(ACTIVATIONS, TensorProto.FLOAT, shape))
    onnx.checker.check_model(changed, full_check=True)
    return changed


def _expect(made_by: Mapping[str, NodeProto], name: str, operator: str) -> NodeProto:
    node = made_by.get(name)
    if node is None or node.op_type != operator:
        found = "nothing" if node is None else node.op_type
        raise GateError(f"The logits are not the mean of class activations: {found} stands where {operator} is expected.")
    return node


def refuse_other_answers(before: Path, after: Path, side: int) -> None:
    """Refuse a file that answers otherwise than before, or whose class activations do not have the logits as their mean.

    Raises:
        GateError: it does.
    """
    images = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), np.uint8)
    images[4:] = np.sort(images[4:], axis=1)
    old, new = (_answers(path, images) for path in (before, after))
    if any(not np.array_equal(old[name], new[name]) for name in old):
        raise GateError(f"{after} does not answer as {before} does.")
    gap = difference(new[LOGITS], new[ACTIVATIONS].mean(axis=(1, 2)))
    if gap > PARITY:
        raise GateError(f"The mean of the class activations differs from the logits by {gap:.1e}; at most {PARITY:.0e} is accepted.")


def _answers(path: Path, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    session = open_session(path, threads=1)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT: images}), strict=True))


def give_class_activations(model: str, releases: Path, model_repository: Path) -> tuple[Release, ...]:
    """Change the file of a model, its configurations, and all releases that judge cells with it.

    Returns:
        These releases, as they are now.

    Raises:
        RecipeError: no release judges cells with it, or it is served from several files.
        GateError: the network has no class activations, or the changed file answers otherwise.

    Whatever fails, all files are as they were.
    """
    store = ReleaseStore(releases, model_repository)
    users = [r for r in store.releases if model in (r.network.model, r.embedder.model)]
    if not users:
        raise RecipeError(f"No release judges cells with {model}.")
    if any(r.network != r.embedder or len({file.file for file in r.network.files.values()}) > 1 for r in users):
        raise RecipeError(f"{model} is served from several files, or beside another embedder; build its releases anew from their runs.")
    path, folder = store.model_path(users[0].network), model_repository / model
    part = path.with_name(path.name + ".part")
    described = [releases / r.id / RELEASE_FILE for r in users]
    try:
        onnx.save(with_class_activations(onnx.load(str(path))), str(part))
        refuse_other_answers(path, part, users[0].input.side)
        with restored_on_failure(
            [path, folder / CONFIG_FILE, folder / CPU_CONFIG_FILE, *described, *model_repository.glob("*/*.json"), *model_repository.glob("*/*.md")]
        ):
            part.replace(path)
            write_model_configs(folder, path, users[0].input.side)
            file = {"file": path.name, "sha256": sha256_of(path)}
            network = {**users[0].network.model_dump(mode="json"), "files": {role.value: file for role in Role}}
            said = {"network": network, "embedder": network, "class_activations": True}
            changed = tuple(restate(user, said, releases, model_repository) for user in users)
            ReleaseStore(releases, model_repository)
    finally:
        part.unlink(missing_ok=True)
    return changed


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Change a model and its releases."""
    parser = program_parser("class-activations", __doc__)
    parser.add_argument("model", help="name of its folder in the model repository")
    parser.add_argument("--releases", type=Path, default=Path("releases"))
    parser.add_argument("--model-repository", type=Path, default=Path("model_repository"))
    given = parser.parse_args(arguments)
    changed = give_class_activations(given.model, given.releases, given.model_repository)
    print(f"{given.model} gives class activations; so say {', '.join(r.id for r in changed)}")


if __name__ == "__main__":
    main()
