"""Schemes that read a graph, on every family: the file loads, and answers as its fp32 file does."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from distill_core.evaluation import file_logits
from distill_core.export import export_onnx
from distill_core.quantization import quantize
from distill_core.schemes import FP16, INT8_FUSED, INT8_STATIC, WEIGHTS_8
from distill_core.session import open_session
from distill_core.targets import OPSET
from distill_core.teacher import load_model, load_tokenizer
from tests.core.family_models import GRAPHS, save_small


@pytest.mark.parametrize("family", GRAPHS)
def test_every_scheme_makes_a_file_of_every_family(
    family: str,
    tiny_bert: Path,
    rows: Any,
    head: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved = save_small(
        family, "ForSequenceClassification", load_tokenizer(tiny_bert), tmp_path / "model"
    )
    read, texts = rows["validation"].select(range(8)), rows["train"].to_list()[:16]
    export_onnx(load_model(saved), head, read, OPSET, tmp_path / "model.onnx")
    plain = file_logits(open_session(tmp_path / "model.onnx"), head, read)
    for scheme in (INT8_FUSED, INT8_STATIC, FP16, WEIGHTS_8):
        (tmp_path / scheme.name).mkdir()
        file = quantize(tmp_path / "model.onnx", scheme, texts, tmp_path / scheme.name)
        onnx.checker.check_model(onnx.load(file))
        answers = file_logits(open_session(file), head, read)
        assert np.abs(answers - plain).max() < 0.1 * max(1.0, np.abs(plain).max()), scheme.name
    assert capsys.readouterr().out == ""  # which is where --json goes
