"""Check this bundle on any machine: python verify.py [--public-key KEY.pem].

It needs numpy and onnxruntime; with tokenizers installed, it checks the token ids too. Exit code 0: every
file is what was published, and the golden examples are answered as they should be. 1: what differs is
printed. 2: the key cannot be read. With a public key, `manifest.json.sig` must be its owner's signature;
that needs cryptography.
"""

import argparse
import base64
import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def main(folder: Path, public_key: Path | None = None) -> int:
    """Check a bundle, and print what was found."""
    problems = check_signature(folder, public_key) if public_key else []
    if problems:  # so that nothing of the folder is to be trusted, or loaded
        print(problems[0])
        return 1
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    problems = check_files(folder, manifest)
    largest = 0.0
    if not problems:
        problems += check_tokenizer(folder, manifest)
        found, largest = check_answers(folder, manifest)
        problems += found
    for problem in problems:
        print(problem)
    where = f"{platform.system()} {platform.machine()}, onnxruntime {onnxruntime.__version__}"
    verdict = f"{len(problems)} problems" if problems else "every file and golden example is right"
    print(f"{manifest['name']} for {manifest['target']}: {verdict}")
    print(f"largest difference {largest:.2g}, on {where}")
    return 1 if problems else 0


def check_signature(folder: Path, public_key: Path) -> list[str]:
    """Return what is wrong with the signature of the manifest."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        return ["manifest.json.sig: was not checked, since cryptography is not installed"]

    path = folder / "manifest.json.sig"
    if not path.is_file():
        return ["manifest.json.sig: is missing, so nobody signed this bundle"]
    try:
        key = load_pem_public_key(public_key.read_bytes())
    except (OSError, ValueError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        print(f"{public_key}: cannot be read as an ed25519 public key in PEM", file=sys.stderr)
        sys.exit(2)
    try:
        key.verify(base64.b64decode(path.read_bytes()), (folder / "manifest.json").read_bytes())
    except (ValueError, InvalidSignature):
        return ["manifest.json.sig: the manifest was not signed by this key, or was changed since"]
    return []


def check_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return what is wrong with the files."""
    problems = []
    for entry in manifest["files"]:
        path = folder / entry["path"]
        if not path.is_file():
            problems.append(f"{entry['path']}: is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            problems.append(f"{entry['path']}: its content is not what was published")
    return problems


def check_tokenizer(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return the golden examples of which the tokenizer makes other token ids."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        print("tokenizers is not installed: token ids were not checked")
        return []
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(manifest["max_length"])
    tokenizer.no_padding()
    problems = []
    for number, golden in enumerate(manifest["golden"]):
        seconds = golden["choices"] or [golden["pair"]]
        ids, mask = (
            np.atleast_2d(golden["inputs"][name]) for name in ("input_ids", "attention_mask")
        )
        expected = [row[counted == 1].tolist() for row, counted in zip(ids, mask)]  # noqa: B905
        found = [tokenizer.encode(golden["text"], second) for second in seconds]
        if [entry.ids for entry in found] != expected:
            problems.append(f"golden example {number}: other token ids: {golden['text'][:40]!r}")
        elif [[list(pair) for pair in entry.offsets] for entry in found] != golden["offsets"]:
            problems.append(f"golden example {number}: other offsets: {golden['text'][:40]!r}")
    return problems


def check_answers(folder: Path, manifest: dict[str, Any]) -> tuple[list[str], float]:
    """Return the golden examples that are answered otherwise, and the largest difference."""
    model, ort = manifest["model"], manifest["ort_model"]
    expected = [np.asarray(golden["logits"]) for golden in manifest["golden"]]
    problems, largest = compare(model, manifest, answers(folder / model, manifest), expected)
    if ort:  # such a file has no exact products, and is held to what the other answers without them
        plain = answers(folder / model, manifest, exact=False)
        found = answers(folder / ort, manifest, exact=False)
        more, larger = compare(ort, manifest, found, plain)
        problems, largest = problems + more, max(largest, larger)
    return problems, largest


def answers(file: Path, manifest: dict[str, Any], exact: bool = True) -> list[Any]:
    """Return the numbers of each golden example.

    Exact products of bytes are those of the processors that the file is for; x86 without VNNI would
    saturate.
    """
    session = load(file, exact)
    return [ask(session, manifest, golden) for golden in manifest["golden"]]


def load(file: Path, exact: bool) -> onnxruntime.InferenceSession:
    """Load a file, with exact products where onnxruntime has them for it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4 if exact else 3
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception:
        if not exact:
            raise
        return load(file, exact=False)


def compare(
    file: str, manifest: dict[str, Any], found: list[Any], expected: list[Any]
) -> tuple[list[str], float]:
    """Return what differs by more than the tolerance, and the largest difference."""
    problems, largest = [], 0.0
    for number, golden in enumerate(manifest["golden"]):
        difference = np.abs(found[number] - expected[number])
        difference[golden["unsure"]] = 0.0  # other processors may well answer otherwise
        largest = max(largest, float(difference.max()))
        if not difference.max() <= manifest["logit_tolerance"]:
            problems.append(
                f"{file}: golden example {number}: differs by {difference.max():.3g}, the tolerance is "
                f"{manifest['logit_tolerance']:.3g}: {golden['text'][:40]!r}"
            )
    return problems, largest


def ask(session: Any, manifest: dict[str, Any], golden: dict[str, Any]) -> Any:
    """Return the numbers of a golden example."""
    feeds = {
        entry.name: np.asarray([golden["inputs"][entry.name]], dtype=DTYPES[entry.type])
        for entry in session.get_inputs()
    }
    outputs = [output[0] for output in session.run(None, feeds)]
    return read(manifest, outputs, np.asarray(golden["inputs"]["attention_mask"])).ravel()


BY_TOKEN = ("token-classification", "question-answering", "masked-language-modelling")


def read(manifest: dict[str, Any], outputs: list[Any], mask: Any) -> Any:
    """Return the numbers of an answer that the manifest tells, of the outputs of one text."""
    if manifest["answer"] == "span":
        return outputs[0]
    if manifest["task"] in BY_TOKEN:
        outputs = [output[: mask.sum()] for output in outputs]  # what is behind is of padding
    if manifest["task"] == "question-answering":
        return np.stack(outputs, axis=-1)  # start and end of each token
    if manifest["task"] == "masked-language-modelling":
        logits = outputs[0].astype(np.float64)
        top = logits.max(axis=-1, keepdims=True)
        return -np.log(np.exp(logits - top).sum(axis=-1))  # log probability of the likeliest token
    if manifest["task"] == "sentence-embeddings":
        hidden = outputs[0]
        pooled = hidden[0] if manifest["pooling"] == "cls" else hidden[mask == 1].mean(axis=0)
        return pooled / np.linalg.norm(pooled)
    return outputs[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Check this bundle.")
    parser.add_argument(
        "--public-key", type=Path, help="PEM file of the ed25519 key that signed it"
    )
    sys.exit(main(Path(__file__).parent, parser.parse_args().public_key))
