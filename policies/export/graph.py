"""The controller as one ONNX graph, in operations that onnxruntime has in double, and few of them."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from dexgrasp.policies.export.controller import DeployableController

OPSET = 18


def write_graph(controller: DeployableController, path: Path) -> None:
    """Write the controller with a free batch size; needs the extra `export`."""
    try:
        from onnxscript import opset18
    except ImportError as error:
        raise ImportError(f"export needs onnx and onnxscript: pip install 'dexgrasp[export]' ({error})") from error

    op: Any = opset18  # its types are those of a graph that is already built

    def cross(a: Any, b: Any, dim: int = -1) -> Any:
        """Five operations on whole vectors in place of twelve on components."""
        left, right = op.Constant(value_ints=[1, 2, 0, 2, 0, 1]), op.Constant(value_ints=[2, 0, 1, 1, 2, 0])
        products = op.Mul(op.Gather(a, left, axis=dim), op.Gather(b, right, axis=dim))
        return op.Sub(*op.Split(products, axis=dim, num_outputs=2))

    def atan2(y: Any, x: Any) -> Any:
        """For x >= 0, all that rotations ask for. onnxruntime has Atan in single precision alone."""
        return op.CastLike(op.Atan(op.Cast(op.Div(y, op.Abs(x)), to=1)), y)

    aten = torch.ops.aten
    example = example_inputs(controller)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports every library that is not installed
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter of torch 2.13 uses what it deprecates itself
        torch.onnx.export(
            controller.eval(),
            example,
            path,
            input_names=list(controller.inputs),
            output_names=controller.outputs,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            dynamic_shapes={"values": tuple({0: torch.export.Dim("batch")} for _ in example)},
            custom_translation_table={aten.linalg_cross.default: cross, aten.atan2.default: atan2},
        )


def example_inputs(controller: DeployableController, rows: int = 2) -> tuple[torch.Tensor, ...]:
    """Inputs of the right sizes and types: zeros, no rotation."""
    values = {name: torch.zeros(rows, *shape.size, dtype=shape.dtype) for name, shape in controller.inputs.items()}
    for name, value in values.items():
        if name.endswith("quat_w"):
            value[:, 0] = 1.0
    return tuple(values.values())
