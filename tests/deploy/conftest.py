"""What a developer with a bundle has: the sample projects, their node packages, and bundles of every task."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from transformers import BertTokenizerFast, RobertaTokenizerFast

from distill_core.graph.shape import GraphShape
from tests.deploy.bundles import PLAIN, make_bundle

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".verifiers" / "node_modules"

Make = Callable[..., Path]


def named(shape: GraphShape) -> str:
    return "-".join(map(str, shape.model_dump().values()))


@pytest.fixture(scope="session")
def bundle_of(
    tiny_bert: Path, tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory
) -> Make:
    """Make a bundle of a task, once for all processes of a test run; not to be changed."""
    here = tmp_path_factory.getbasetemp()
    shared = (here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) / "bundles"
    tokenizers = {
        "bert": lambda: BertTokenizerFast.from_pretrained(tiny_bert),
        "roberta": lambda: RobertaTokenizerFast.from_pretrained(tiny_roberta),
    }

    def make(task: str, family: str = "bert", shape: GraphShape = PLAIN) -> Path:
        folder = shared / f"{task}-{family}-{named(shape)}"
        shared.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                folder.mkdir()
                make_bundle(task, family, shape, tokenizers[family](), "web-wasm", folder)
        return folder / "bundle"

    return make


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples as a developer has them after `npm ci`; a copy."""
    for name in ("onnxruntime-web", "@huggingface/tokenizers", "playwright-core"):
        if not (MODULES / name).is_dir() or not shutil.which("node"):
            pytest.skip(f"node or its package {name} is not here: make verifiers")
    folder = tmp_path_factory.mktemp("samples")
    unwanted = shutil.ignore_patterns("node_modules", "vendor", "bundle")
    for name in ("js", "node", "web"):
        shutil.copytree(ROOT / "deploy" / name, folder / name, ignore=unwanted)
    (folder / "node_modules").symlink_to(MODULES, target_is_directory=True)
    return folder
