"""What a developer with a bundle has: the sample projects, their node packages, and bundles of every task."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertTokenizerFast, RobertaTokenizerFast

from tests.deploy.bundles import make_bundle

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".verifiers" / "node_modules"

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def bundle_of(
    tiny_bert: Path, tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory
) -> Make:
    """Make a bundle of a task, once; not to be changed."""
    made: dict[tuple[str, str], Path] = {}

    def make(task: str, family: str = "bert") -> Path:
        if (task, family) not in made:
            roberta = family == "roberta"
            tokenizer = (
                RobertaTokenizerFast.from_pretrained(tiny_roberta)
                if roberta
                else BertTokenizerFast.from_pretrained(tiny_bert)
            )
            folder = tmp_path_factory.mktemp(f"{task}-{family}")
            made[task, family] = make_bundle(task, family, tokenizer, "web-wasm", folder)
        return made[task, family]

    return make


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample projects as a developer has them after `npm ci`; a copy, with what is not tracked left out."""
    for name in ("onnxruntime-web", "@huggingface/tokenizers", "playwright-core"):
        if not (MODULES / name).is_dir() or not shutil.which("node"):
            pytest.skip(f"node or its package {name} is not here: make verifiers")
    folder = tmp_path_factory.mktemp("samples")
    unwanted = shutil.ignore_patterns("node_modules", "vendor", "bundle")
    for name in ("js", "node", "web"):
        shutil.copytree(ROOT / "deploy" / name, folder / name, ignore=unwanted)
    (folder / "node_modules").symlink_to(MODULES, target_is_directory=True)
    return folder
