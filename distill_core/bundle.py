"""Assemble the folder that a mobile or web developer gets."""

import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from distill_core.export import signature
from distill_core.files import file_digest, read_json, write_json
from distill_core.filling import measure_filling
from distill_core.golden import Shipped, Texts, golden_examples
from distill_core.graph.answers import tolerance_of
from distill_core.graph.ort_format import ORT_FILE, write_ort
from distill_core.graph.shape import GraphShape
from distill_core.graph.shaping import shape_file
from distill_core.graph.spans import SpanRule
from distill_core.graph.table import LAST_STEPS
from distill_core.heads import HEADS, Head
from distill_core.heads.question_answering import MOST_TOKENS
from distill_core.manifest import MANIFEST, FileEntry, Filled, Golden, Manifest, TensorEntry
from distill_core.pooling import copy_pooling
from distill_core.providers import PROVIDERS
from distill_core.quantization import QUANTIZED_FILE
from distill_core.targets import OPSET, Target
from distill_core.teacher import load_tokenizer

HARD_TEXTS = (
    "",
    " ",
    "naïve café, Ünïcödé and Zoë's résumé",
    "👍🏽 family: 👨‍👩‍👧‍👦 and flags 🇩🇪🇯🇵",
    "日本語のテキストと中文字符混在",
    "مرحبا بالعالم — שלום עולם",
    "İstanbul ŞIŞLİ ß ſ Ǆ",
    "tab\there, line\nbreak, nul\x00 and bell\x07",
    "[CLS] special [MASK] tokens [SEP] in <s> the </s> text [PAD]",
    "e\u0301 combining, \u200bzero width\u200d, \ufeffbyte order mark",
    "https://example.org/?q=a+b&c=%20 user@example.org #tag @name $1,234.56",
    "antidisestablishmentarianism" * 8,
    "over the limit " * 400,
)
"""Texts on which tokenizers of different languages and versions tend to differ."""

CHECK = Path(__file__).parent / "cards" / "verify.py"
"""What checks a bundle where there is no distill-deploy."""

VERSIONED = (
    "torch",
    "transformers",
    "optimum",
    "optimum-onnx",
    "onnx",
    "onnxruntime",
    "tokenizers",
)


@dataclass(frozen=True)
class Artifact:
    """A quantized file and what was measured of it."""

    target: Target
    scheme: str
    file: Path
    metrics: dict[str, float]
    retention: float
    agreement: float


@dataclass(frozen=True)
class Origin:
    """Where an artifact comes from."""

    name: str
    """Of the pipeline."""
    student: Path
    """A transformers folder."""
    exported: Path
    """The student as an fp32 ONNX file."""
    head: Head
    max_length: int
    teacher_fingerprint: str
    inputs: Sequence[dict[str, Any]]
    """Of the ONNX file, as `export.signature` gives them."""
    outputs: Sequence[dict[str, Any]]
    graph: GraphShape = field(default_factory=GraphShape)
    """How the files are shaped before they are shipped."""
    asked: Sequence[Texts] = ()
    """Texts of scored rows, by which it is measured what a fixed length costs."""

    @property
    def tokens(self) -> int:
        """How many of a text are read."""
        return self.graph.length or self.max_length


def assemble(artifact: Artifact, origin: Origin, texts: Sequence[Texts], folder: Path) -> Manifest:
    """Fill an empty folder with a bundle, in the layout that transformers.js and optimum read.

    Args:
        artifact: the quantized file and its figures.
        origin: student, labels and signature.
        texts: rows that were never trained on, to become golden examples beside the hard ones.
        folder: empty.
    """
    tokenizer = load_tokenizer(origin.student)
    file = _write_models(artifact, origin, tokenizer, folder)
    _write_tokenizer_and_config(origin, folder)
    shipped = Shipped(file, artifact.file, origin.graph, origin.head, origin.tokens, tokenizer)
    golden, tolerance = golden_examples(shipped, [*texts, *_hard_texts(len(texts[0]))], folder)
    manifest = _manifest(artifact, origin, shipped, golden, tolerance)
    if origin.graph.length and origin.asked:
        filled = measure_filling(shipped, origin.max_length, origin.asked)
        manifest = manifest.model_copy(update={"filled": Filled(**filled)})
    (folder / "README.md").write_text(model_card(manifest), encoding="utf-8")
    shutil.copyfile(CHECK, folder / CHECK.name)
    files = tuple(_entry(path, folder) for path in sorted(folder.rglob("*")) if path.is_file())
    manifest = manifest.model_copy(update={"files": files})
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _write_models(artifact: Artifact, origin: Origin, tokenizer: Any, folder: Path) -> Path:
    onnx_folder = folder / "onnx"
    onnx_folder.mkdir()
    file, shape = onnx_folder / QUANTIZED_FILE, (origin.graph, origin.head.name)
    asked = origin.graph.answer == "span"
    rule = SpanRule(MOST_TOKENS, tokenizer.sep_token_id) if asked else None
    shape_file(artifact.file, *shape, file, rule)
    shape_file(origin.exported, *shape, onnx_folder / "model.onnx", rule)
    if origin.graph.ort_format:
        write_ort(file, x86="AVX" in artifact.target.instruction_set)
    return file


def _write_tokenizer_and_config(origin: Origin, folder: Path) -> None:
    tokenizer = load_tokenizer(origin.student)
    tokenizer.model_max_length = origin.tokens
    tokenizer.save_pretrained(folder, legacy_format=False)
    copy_pooling(origin.student, folder)
    config = read_json(origin.student / "config.json")
    if origin.head.has_classes:
        names = {str(number): name for number, name in enumerate(origin.head.labels)}
        config["id2label"] = names
        config["label2id"] = {name: int(number) for number, name in names.items()}
    write_json(folder / "config.json", config)


def _hard_texts(count: int) -> list[Texts]:
    """Return each hard text with others beside it, where a model reads several at once.

    Never the overlong one beside itself: tokenizers keeps what it cuts off, in all combinations of both.
    """
    others = HARD_TEXTS[::-1]
    shifted = (others[-n:] + others[:-n] for n in range(count - 1))
    return list(zip(HARD_TEXTS, *shifted, strict=True))


def _manifest(
    artifact: Artifact,
    origin: Origin,
    shipped: Shipped,
    golden: tuple[Golden, ...],
    tolerance: float,
) -> Manifest:
    head, graph = origin.head, origin.graph
    tensors = {"inputs": origin.inputs, "outputs": origin.outputs}
    described = tensors if graph.plain else signature(shipped.file)
    step = LAST_STEPS.get(head.name, {}).get(graph.answer)
    return Manifest(
        name=origin.name,
        target=artifact.target.name,
        runtime=artifact.target.runtime,
        instruction_set=artifact.target.instruction_set,
        oldest_runtime=artifact.target.oldest_runtime,
        provider=artifact.target.provider,
        verifiers=artifact.target.verifiers,
        task=head.name,
        scheme=artifact.scheme,
        model=f"onnx/{QUANTIZED_FILE}",
        opset=OPSET,
        ort_model=f"onnx/{ORT_FILE}" if graph.ort_format else None,
        inputs=tuple(TensorEntry(**entry) for entry in described["inputs"]),
        outputs=tuple(TensorEntry(**entry) for entry in described["outputs"]),
        answer=graph.answer,
        padding={
            entry["name"]: shipped.padding[entry["name"]]
            for entry in described["inputs"]
            if graph.length
        },
        labels=head.labels,
        pooling=head.pooling,
        max_length=origin.tokens,
        teacher_fingerprint=origin.teacher_fingerprint,
        metrics=artifact.metrics,
        retention=artifact.retention,
        agreement=artifact.agreement,
        files=(),
        golden=golden,
        logit_tolerance=tolerance_of(step, tolerance) if step else tolerance,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions that decide what a bundle holds."""
    names = {name: version(name) for name in VERSIONED}
    return {
        "python": platform.python_version(),
        "distill-deploy": version("distill-deploy"),
        **names,
    }


def _entry(path: Path, folder: Path) -> FileEntry:
    name = path.relative_to(folder).as_posix()
    return FileEntry(path=name, bytes=path.stat().st_size, sha256=file_digest(path))


def model_card(manifest: Manifest) -> str:
    """Return the README of a bundle: what it is, its figures, and code that loads it."""
    # autoescape is for HTML; this is Markdown with code in it.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("distill_core", "cards"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("README.md.j2").render(
        manifest=manifest,
        head=HEADS[manifest.task],
        reading=_reading(manifest),
        narrow=manifest.inputs[0].dtype == "int32",
        length=manifest.inputs[0].shape[-1] if manifest.padding else None,
        switched_on=manifest.provider and PROVIDERS[manifest.provider].switched_on,
    )


def _reading(manifest: Manifest) -> str:
    """Say how an app reads what the file answers with."""
    if manifest.answer == "logits":
        return HEADS[manifest.task].reading
    return LAST_STEPS[manifest.task][manifest.answer].reading
