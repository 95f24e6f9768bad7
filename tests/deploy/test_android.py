"""The Android sample: compiled, and its reading of answers held against bundles of every task.

There is no Android here. Tokenizer and model are what `tokenizers` and onnxruntime said, recorded; what the
app calls of DJL, onnxruntime-android and Android itself is compiled against declarations in `kotlin/stubs`.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from distill_core.graph.shape import GraphShape
from distill_core.manifest import Golden, Manifest, read_manifest
from distill_core.session import open_session, run_row
from distill_core.verification import open_tokenizer
from tests.conftest import PATIENCE_S
from tests.deploy.bundles import PLAIN, SHAPED_SLICE, TASKS
from tests.deploy.conftest import MODULES, ROOT, Make

pytestmark = pytest.mark.integration

COMPILER = MODULES / "kotlin-compiler" / "lib"
JSON = ROOT / ".verifiers" / "android-json" / "com.android.json.jar"
"""Android's own org.json."""


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sample's classes with those of the replay, as a class path."""
    if not COMPILER.is_dir() or not JSON.is_file() or not shutil.which("java"):
        pytest.skip("java, kotlin-compiler or org.json is not here: make verifiers")
    out = tmp_path_factory.mktemp("classes")
    standard = COMPILER / "kotlin-stdlib.jar"
    command = [
        "java",
        "-Xmx1g",
        "-cp",
        f"{COMPILER}/*",
        "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler",
    ]
    options = ["-no-reflect", "-no-stdlib", "-Werror", "-cp", f"{standard}:{JSON}", "-d", str(out)]
    sources = [ROOT / "deploy/android/app/src/main/kotlin", Path(__file__).parent / "kotlin"]
    done = subprocess.run(
        [*command, *options, *map(str, sources)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return f"{out}:{standard}:{JSON}"


BUNDLES = [*((task, PLAIN) for task in TASKS), *SHAPED_SLICE]


@pytest.mark.parametrize(("task", "shape"), BUNDLES)
def test_answers_are_those_of_the_bundle(
    classes: str, bundle_of: Make, task: str, shape: GraphShape, tmp_path: Path
) -> None:
    bundle = bundle_of(task, shape=shape)
    found = replay(classes, bundle, tmp_path)
    golden = read_manifest(bundle).golden
    assert found["problems"] == []
    assert found["examples"] == len(golden)
    assert found["largest"] < 1e-6
    for answer, example in zip(found["answers"], golden, strict=True):
        check_answer(task, answer, example)


def check_answer(task: str, answer: dict[str, Any], example: Golden) -> None:
    said = {"no answer": "", "no label": ""}.get(answer["label"], answer["label"])
    if task == "regression":
        assert float(said) == pytest.approx(float(example.label), rel=1e-3)
    elif task == "multiple-choice":
        assert example.choices is not None
        assert said == example.choices[int(example.label)]
    elif task == "token-classification":
        tags = example.label.split()
        assert all(word.split()[-1] in tags for word in answer["scores"])
    elif task == "sentence-embeddings":
        assert said.startswith(example.label.split()[0])
    elif task != "masked-language-modelling":  # the texts but one have no mask
        assert said == example.label


def test_what_differs_from_the_golden_examples_is_named(
    classes: str, bundle_of: Make, tmp_path: Path
) -> None:
    bundle = shutil.copytree(bundle_of("sequence-classification"), tmp_path / "bundle")
    document = json.loads((bundle / "manifest.json").read_text())
    document["golden"][0]["logits"][0] += 1
    document["golden"][1]["inputs"]["input_ids"][1:1] = [7]
    document["golden"][1]["inputs"]["attention_mask"][1:1] = [1]
    document["golden"][1]["inputs"]["token_type_ids"][1:1] = [0]
    (bundle / "manifest.json").write_text(json.dumps(document))
    first, *others = replay(classes, bundle, tmp_path)["problems"]
    assert "golden example 0" in first
    assert first.endswith("differs by 1.00, the tolerance is 0.1")
    assert others[0].startswith("golden example 1: ")
    assert others[0].endswith("tokenizes otherwise")


def replay(classes: str, bundle: Path, folder: Path) -> dict[str, Any]:
    records = folder / "records.json"
    records.write_text(json.dumps(record(bundle)))
    command = ["java", "-cp", classes, "sample.ReplayKt", str(bundle), str(records)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def record(bundle: Path) -> dict[str, Any]:
    """What tokenizers and onnxruntime say to the golden texts."""
    manifest = read_manifest(bundle)
    tokenizer = open_tokenizer(bundle, manifest.max_length)
    encodings = {}
    for example in manifest.golden:
        for second in example.choices or (example.pair,):
            key = f"{example.text}\n{'null' if second is None else second}"
            encodings[key] = encode(tokenizer, example.text, second)
    size = tokenizer.get_vocab_size()
    tokens = [tokenizer.id_to_token(number) for number in range(size)]
    return {"encodings": encodings, "outputs": outputs_of(bundle, manifest), "tokens": tokens}


def encode(tokenizer: Tokenizer, text: str, second: str | None) -> dict[str, Any]:
    encoding = tokenizer.encode(text, second)
    return {
        "input_ids": encoding.ids,
        "attention_mask": encoding.attention_mask,
        "token_type_ids": encoding.type_ids,
        "offsets": encoding.offsets,
        "special": [int(source is None) for source in encoding.sequence_ids],
        "second": [source == 1 for source in encoding.sequence_ids],
    }


def outputs_of(bundle: Path, manifest: Manifest) -> dict[str, Any]:
    session = open_session(bundle / manifest.model, threads=1)
    outputs = {}
    for example in manifest.golden:
        ids = np.atleast_2d(example.inputs["input_ids"]).tolist()
        found = run_row(session, example.inputs)
        outputs[json.dumps(ids, separators=(",", ":"))] = {
            name: [values.ravel().tolist(), list(values.shape)] for name, values in found.items()
        }
    return outputs
