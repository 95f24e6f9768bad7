"""Export a model to ONNX, and prove that the file answers as the model does."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from datasets import Dataset
from onnx.external_data_helper import uses_external_data
from optimum.exporters.onnx import OnnxConfig, onnx_export_from_model
from optimum.exporters.onnx.model_configs import BertOnnxConfig, DistilBertOnnxConfig
from optimum.exporters.tasks import TasksManager
from optimum.utils import logging
from transformers import PreTrainedModel

from distill_core.batches import evaluation_batches, model_inputs
from distill_core.errors import ExportError
from distill_core.graph.first_token import keep_first_token
from distill_core.graph.sizes import settle_sizes
from distill_core.heads import Head
from distill_core.plan import LARGEST_FILE
from distill_core.runtime import answer_row
from distill_core.session import open_session
from distill_core.teacher import knows_segments

PARITY_TOLERANCE = 1e-3
"""Largest difference of a logit: fp32 sums in another order differ by some 1e-6 a layer."""

PARITY_ROWS = 32


def export_onnx(
    model: PreTrainedModel, head: Head, rows: Dataset, opset: int, path: Path
) -> dict[str, Any]:
    """Write a model as one fp32 ONNX file with dynamic batch and length, and check it.

    Args:
        model: a loaded model in fp32.
        head: names the ONNX task.
        rows: tokenized rows on which file and model must answer alike; the first 32 are read.
        opset: ONNX operator set.
        path: where the file goes, ending in .onnx.

    Returns:
        opset, bytes, the largest difference of a logit, and inputs and outputs of the file.

    Raises:
        ExportError: the file is invalid or has weights beside it, or answers otherwise than the model.
    """
    export_whole(model, head, opset, path, segments="token_type_ids" in rows.column_names)
    check_one_file(path)
    _leave_out_what_no_text_needs(path)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{path}: the exported file is not valid ONNX: {error}") from None
    difference = parity(model, head, path, rows.select(range(min(PARITY_ROWS, len(rows)))))
    if difference > PARITY_TOLERANCE:
        raise ExportError(
            f"{path}: its logits differ from the model's by up to {difference:.2g}; "
            f"accepted: {PARITY_TOLERANCE}"
        )
    return {
        "opset": opset,
        "bytes": path.stat().st_size,
        "parity_max_difference": difference,
        **signature(path),
    }


def export_whole(
    model: PreTrainedModel, head: Head, opset: int, path: Path, segments: bool
) -> None:
    """Write what optimum writes: all that the model computes, whether its head reads it or not.

    Args:
        model: a loaded model in fp32.
        head: names the ONNX task.
        opset: ONNX operator set.
        path: where the file goes, ending in .onnx.
        segments: whether texts come with them, token_type_ids, for a model that reads them.
    """
    logging.set_verbosity_error()
    _teach_exporter(model, head)
    with warnings.catch_warnings():
        # Tracing warns of Python values that become constants; parity on rows of other lengths
        # than the traced one is the proof that none of them matters.
        warnings.simplefilter("ignore")
        onnx_export_from_model(
            model,
            path.parent,
            opset=opset,
            task=head.onnx_task,
            custom_onnx_configs=_with_segments(model, head) if segments else None,
            do_validation=False,
        )
    exported = path.parent / "model.onnx"
    if exported != path:
        exported.rename(path)


def _teach_exporter(model: PreTrainedModel, head: Head) -> None:
    """Tell optimum how to export a family that it does not list for a task: as BERT, or without segments."""
    family = model.config.model_type
    if family in TasksManager.get_supported_model_type_for_task(head.onnx_task, "onnx"):
        return
    nearest = BertOnnxConfig if _reads_segments(model) else DistilBertOnnxConfig
    TasksManager.create_register("onnx")(family, head.onnx_task)(nearest)


def _with_segments(model: PreTrainedModel, head: Head) -> dict[str, OnnxConfig] | None:
    """Return how a model with segments is exported if optimum leaves them out, as it does RoBERTa's."""
    make = TasksManager.get_exporter_config_constructor("onnx", model=model, task=head.onnx_task)
    if not _reads_segments(model) or "token_type_ids" in make(model.config).inputs:
        return None
    return {"model": BertOnnxConfig(model.config, task=head.onnx_task)}


def _reads_segments(model: PreTrainedModel) -> bool:
    takes = "token_type_ids" in inspect.signature(model.forward).parameters
    return takes and knows_segments(model.config.to_dict())


def _leave_out_what_no_text_needs(path: Path) -> None:
    exported = onnx.load(path)
    changed = [keep_first_token(exported), settle_sizes(exported)]
    if any(changed):
        onnx.save(exported, path)


def check_one_file(path: Path) -> None:
    """Check that an ONNX file holds all of its weights.

    Raises:
        ExportError: some are in other files, which is how exporters write what is too large for one.
    """
    graph = onnx.load(path, load_external_data=False).graph
    outside = [tensor.name for tensor in graph.initializer if uses_external_data(tensor)]
    if outside:
        raise ExportError(
            f"{path}: {len(outside)} of its weights are in other files, {outside[0]} first; accepted: models "
            f"of less than {LARGEST_FILE:,} bytes in fp32, which one ONNX file can hold; keep fewer layers "
            "(student.count) or narrower ones (student.hidden_size)"
        )


def parity(model: PreTrainedModel, head: Head, path: Path, rows: Dataset) -> float:
    """Return the largest difference of a logit between a model and its ONNX file."""
    session, differences = open_session(path), []
    # Row by row on both sides: ConvBERT's convolutions read the padding beside a text too.
    for _, batch in evaluation_batches(rows, 1, model.config.pad_token_id):
        with torch.inference_mode():
            answer = model(**model_inputs(model, batch))
        expected = head.read_output(answer, batch["attention_mask"])
        row = {name: values[0].tolist() for name, values in batch.items()}
        differences.append(np.abs(answer_row(session, head, row) - expected[0].numpy()).max())
    return float(max(differences))


def signature(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return name, shape and dtype of the inputs and outputs of an ONNX file."""
    session = open_session(path)
    return {
        "inputs": [_tensor(entry) for entry in session.get_inputs()],
        "outputs": [_tensor(entry) for entry in session.get_outputs()],
    }


def _tensor(entry: Any) -> dict[str, Any]:
    kind = entry.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32"}.get(kind, kind)
    return {"name": entry.name, "shape": entry.shape, "dtype": dtype}
