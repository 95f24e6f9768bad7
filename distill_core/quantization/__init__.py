"""Turn an fp32 ONNX file into the small file of a scheme."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from distill_core.quantization.blocks import quantize_blocks, quantize_embeddings
from distill_core.quantization.coded import CodedRows
from distill_core.quantization.dynamic import quantize_dynamically
from distill_core.quantization.fusion import quantize_fused
from distill_core.quantization.half import halve
from distill_core.quantization.mixed import Within, keep_precision
from distill_core.quantization.packing import pack
from distill_core.quantization.smoothing import smooth, split
from distill_core.quantization.static import quantize_statically
from distill_core.quantization.tables import code_table
from distill_core.schemes import Scheme

QUANTIZED_FILE = "model_quantized.onnx"

Rows = Sequence[Mapping[str, Any]]
"""Training texts, token ids and masks."""

Evener = Callable[[onnx.ModelProto, Rows], None]


def quantize(
    model: Path,
    scheme: Scheme,
    rows: Rows,
    folder: Path,
    words: CodedRows | None = None,
    most_bytes: int | None = None,
) -> Path:
    """Write the small twin of an ONNX file and return its path.

    Args:
        model: an fp32 ONNX file.
        scheme: how.
        rows: training texts, token ids and masks.
        folder: where `model_quantized.onnx` goes.
        words: codes of the word embeddings, read by schemes with a codebook; None codes them now, all alike.
        most_bytes: that the file may have; schemes that pack matrices leave in 8 bits what there is room for.
            None packs all.
    """
    file = folder / QUANTIZED_FILE
    # onnxruntime's calibrators and fusions tell on stdout what they do, where --json goes.
    with redirect_stdout(StringIO()):
        if scheme.stored == "codebook":
            _pack(model, scheme, rows, file, words, most_bytes)
        else:
            _MAKERS[scheme.stored](model, scheme, rows, file)
    return file


def _make_dynamic(model: Path, scheme: Scheme, rows: Rows, file: Path) -> None:
    with _evened(model, rows, file.parent) as even:
        quantize_dynamically(even, scheme.reduce_range, file, embeddings=not scheme.embedding_bits)
    if scheme.embedding_bits:
        draft = onnx.load(file)
        quantize_embeddings(draft, scheme.embedding_bits)
        onnx.save(draft, file)


def _make_fused(model: Path, scheme: Scheme, rows: Rows, file: Path) -> None:
    with _evened(model, rows, file.parent) as even:
        quantize_fused(even, scheme.reduce_range, rows, file)


def _pack(
    model: Path,
    scheme: Scheme,
    rows: Rows,
    file: Path,
    words: CodedRows | None,
    most_bytes: int | None,
) -> None:
    if words is None and scheme.packing:
        words = code_table(onnx.load(model), None, scheme.packing)
    matrices = scheme.packs == "all"
    if matrices:
        # From the full range, which says more of the weights; what is not packed is brought to the
        # scheme's own.
        with _evened(model, rows, file.parent, split) as even:
            quantize_dynamically(even, False, file)
    else:
        _make_evened(model, scheme, rows, file)
    draft = onnx.load(file)
    if pack(draft, scheme, rows, words, most_bytes):
        onnx.save(draft, file)
    elif matrices:
        _make_evened(model, scheme, rows, file)


def _make_evened(model: Path, scheme: Scheme, rows: Rows, file: Path) -> None:
    with _evened(model, rows, file.parent) as even:
        quantize_dynamically(even, scheme.reduce_range, file)


_MAKERS: Mapping[str, Callable[[Path, Scheme, Rows, Path], None]] = {
    "8 bits": _make_dynamic,
    "calibrated": quantize_statically,
    "fp16": halve,
    "blocks": quantize_blocks,
    "fused": _make_fused,
}


def quantize_in_part(
    model: Path, scheme: Scheme, rows: Rows, within: Within, folder: Path
) -> list[str]:
    """Write a file with as few matrices in fp32 as it takes to lose little enough.

    Args:
        model: an fp32 ONNX file.
        scheme: of the others; one that stores 8 bits.
        rows: training texts, token ids and masks.
        within: judges a file.
        folder: where `model_quantized.onnx` goes.

    Returns:
        Names of the products that stayed in fp32; none, and no file, where that did not help.
    """
    with _evened(model, rows, folder) as even:
        return keep_precision(even, scheme.reduce_range, rows, within, folder / QUANTIZED_FILE)


@contextmanager
def _evened(model: Path, rows: Rows, folder: Path, evener: Evener = smooth) -> Iterator[Path]:
    even = onnx.load(model)
    evener(even, rows)
    with TemporaryDirectory(dir=folder) as scratch:
        file = Path(scratch, model.name)
        onnx.save(even, file)
        yield file
