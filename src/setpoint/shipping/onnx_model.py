"""A student as ONNX: written from PyTorch, quantised, and run by ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from setpoint.errors import ModelError
from setpoint.reading import Reading
from setpoint.shipping.needs import need
from setpoint.tasks.base import Batch
from setpoint.types import logits_of, part_of, valid_rows

AXES = ("batch", "length")
"""The axes that an exported model takes in any size; inputs without a mask have the size they were trained with."""
FIXED = ("pixel_values", "features")
"""Inputs of which an example has the size that the model was trained with."""


class OnnxModel:
    """A TargetSource that runs an ONNX file on the CPU.

    Args:
        path: the file.
        labels: class names, in the order of the logits.
        threads: that one batch is computed with; as many as there are cores unless given.
        reading: how the model's output is read, as in training.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """

    def __init__(
        self, path: str | Path, labels: Sequence[str], threads: int | None = None, reading: Reading | None = None
    ) -> None:
        need("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # its warnings are of its own optimisations
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common base
            reason = " ".join(str(error).split())[:160]
            raise ModelError(f"'{path}' cannot be loaded by ONNX Runtime ({reason})", "export the run again") from None
        self.labels, self.reading = tuple(labels), reading or Reading()
        self.inputs = tuple(one.name for one in self._session.get_inputs())

    def run(self, batch: Mapping[str, Any]) -> Tensor:
        """The logits of a batch, ``[B, C]`` or ``[B, L, C]``, as its reading has them."""
        parts = self._session.run(None, {name: batch[name].numpy() for name in self.inputs})
        output = dict(zip(self.reading.parts, map(torch.from_numpy, parts), strict=True))
        return self.reading.logits(output, batch)

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """The logits ``[R, C]`` of the valid rows of a batch."""
        return self.run(batch)[valid_rows(batch)]


class _Parts(nn.Module):
    """A model of named inputs as one of inputs in order, which gives those parts of its output and nothing else."""

    def __init__(self, model: nn.Module, names: Sequence[str], parts: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names, self.parts = model, tuple(names), tuple(parts)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        output = self.model(**dict(zip(self.names, tensors, strict=True)))
        return tuple(logits_of(output) if part == "logits" else part_of(output, part) for part in self.parts)


def write_onnx(
    model: nn.Module, batch: Batch, names: Sequence[str], path: Path, parts: Sequence[str] = ("logits",)
) -> None:
    """Write a model as ONNX, of any batch and length.

    Args:
        model: in eval mode, on the CPU.
        batch: an example of its inputs, of two examples or more.
        names: those inputs of the batch that the model takes.
        path: where to.
        parts: the tensors of its output that are wanted.

    Raises:
        ModelError: PyTorch cannot export it.
    """
    need("onnx", "onnxscript")
    tensors = tuple(batch[name] for name in names)
    fixed = FIXED if "attention_mask" in names else (*FIXED, "input_values")
    axes = tuple(
        dict(enumerate(AXES[: 1 if name in fixed else tensor.dim()]))
        for name, tensor in zip(names, tensors, strict=True)
    )
    import onnx

    with _quiet():
        try:
            torch.onnx.export(
                _Parts(model, names, parts).eval(),
                tensors,
                path,
                input_names=list(names),
                output_names=list(parts),
                dynamic_shapes={"tensors": axes},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # the exporter raises whatever its steps do
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"PyTorch cannot export {type(model).__name__} to ONNX ({reason})", "use --format safetensors"
            ) from None
    whole = onnx.load(path)
    for node in whole.graph.node:  # where in PyTorch it came from: a tenth of a small model in 8 bits
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(whole, path)


def quantise(source: Path, path: Path) -> None:
    """Write an ONNX file with weights of 8 bits; activations are quantised as they come, batch by batch."""
    need("onnx", "onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(source, path, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress on stdout and the libraries' hints on how to do it otherwise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
