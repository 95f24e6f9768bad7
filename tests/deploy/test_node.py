"""The script for node, as a developer types it, and the modules that web page and phone share with it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from distill_core.verification import open_tokenizer
from tests.conftest import TEXTS
from tests.deploy.bundles import MAX_LENGTH, TASKS
from tests.deploy.conftest import Make

pytestmark = pytest.mark.integration


def predict(samples: Path, code: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["node", "predict.mjs", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=samples / "node", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("task", TASKS)
def test_golden_examples_of_every_task_are_answered_as_published(
    samples: Path, bundle_of: Make, task: str
) -> None:
    done = predict(samples, 0, bundle_of(task), "--check")
    assert "tiny for web-wasm: 14 golden examples, as published" in done.stdout


@pytest.mark.parametrize("task", ["question-answering", "multiple-choice"])
def test_pieces_of_bytes_are_cut_and_placed_as_by_tokenizers(
    samples: Path, bundle_of: Make, task: str
) -> None:
    predict(samples, 0, bundle_of(task, "roberta"), "--check")


def test_node_and_tokenizers_read_texts_of_many_scripts_alike(
    samples: Path, bundle_of: Make, tmp_path: Path
) -> None:
    texts = ["ΟΔΥΣΣΕΥΣ ΣΑΣ", "ǅ ﬁ Å", "क्षि 한국어 ไทย", "a\u00a0b\u2028c", "x" * 101, "\U0001f468\u200d\U0001f4bb", "½ Ⅷ ﷺ"]
    bundle = shutil.copytree(bundle_of("sequence-classification"), tmp_path / "bundle")
    tokenizer = open_tokenizer(bundle, MAX_LENGTH)
    manifest = json.loads((bundle / "manifest.json").read_text())
    first = manifest["golden"][0]
    manifest["golden"] = []
    for text in texts:
        encoding = tokenizer.encode(text)
        names = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}
        inputs = {**names, "token_type_ids": encoding.type_ids}
        manifest["golden"].append({**first, "text": text, "inputs": inputs})
    manifest["logit_tolerance"] = 1e9
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert "as published" in predict(samples, 0, bundle, "--check").stdout
