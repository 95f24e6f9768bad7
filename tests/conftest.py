"""What all tests share: shape checks while they run, and small real teachers and texts."""

import gc
import itertools
import os
import random
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import jaxtyping
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Every annotated shape and type in distill_core is checked at each call. Before its first import.
jaxtyping.install_import_hook("distill_core", "beartype.beartype")

# transformers, datasets and prefect read these once, at their import: nothing is kept in the home
# folder, and no test asks the real hub, since port 9 ("discard") refuses connections.
_HOME = TemporaryDirectory(prefix="distill-deploy-tests-")
os.environ["HF_HOME"] = _HOME.name
os.environ["PREFECT_HOME"] = _HOME.name
os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")

from flows.cli import OBJECTS_BETWEEN_COLLECTIONS  # noqa: E402 - it follows the import hook

gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)

if TYPE_CHECKING:  # seconds, which the process that only hands out tests does without
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

PATIENCE_S = 600
"""Seconds that a busy machine may take for anything: only what hangs takes longer."""

GOOD = ("good", "warm", "witty", "bright", "moving")
BAD = ("bad", "dull", "clumsy", "bleak", "tired")
THINGS = ("film", "plot", "cast", "scene", "score")
ADVERBS = ("very", "rather", "not ever so")
TEXTS = [
    f"The {thing} was {adverb} {word}"
    for adverb, thing, word in itertools.product(ADVERBS, THINGS, GOOD + BAD)
]
"""150 sentences; the last word alone decides the label."""

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.1,  # at the usual 0.02, layers of this width do next to nothing
    "id2label": {0: "negative", 1: "positive"},
    "label2id": {"negative": 0, "positive": 1},
}

FINISHED_RUN = "finished_run"
"""The fixture that takes longest to make: files that ask for it stay together; of others, each by itself."""


class Together(LoadScopeScheduling):
    """Keeps in one process what shares what is slow to make."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return FINISHED_RUN if _asks_for_finished_run(self.config.rootpath / file) else file


@cache
def _asks_for_finished_run(file: Path) -> bool:
    return FINISHED_RUN in file.read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    # Not by its marks of groups: pytest 9.2 drops what pytest-xdist 3.8 writes them into, silently.
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole pipelines, so that none is left for the end."""
    items.sort(key=lambda item: "flows" not in item.path.parts)


def pytest_configure() -> None:
    settings.register_profile("house", deadline=None)  # a busy machine is no failure
    settings.load_profile("house")


def pytest_unconfigure() -> None:
    _HOME.cleanup()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Layers of width 32 gain nothing from a second thread, and on a busy machine two that wait for
    # each other took 30 times as long.
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT teacher of 4 layers with random weights, as transformers saves it."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    # Written, not trained: WordPiece training orders equal scores otherwise in every process.
    words = sorted({word for text in TEXTS for word in text.lower().split()})
    letters = [*ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *letters, *words]))
    tokenizer = BertTokenizerFast(vocab_file=str(folder / "vocab.txt"))
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SHAPE)
    return _save(BertForSequenceClassification, config, tokenizer, folder)


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa teacher of 4 layers with random weights, as transformers saves it."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    from tests.core.small_tokenizers import byte_pairs

    folder = tmp_path_factory.mktemp("tiny-roberta")
    tokenizer = byte_pairs(add_prefix_space=False)
    # RoBERTa's positions start at 2, so 66 of them reach 64 tokens.
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=66, **SHAPE)
    return _save(RobertaForSequenceClassification, config, tokenizer, folder)


@pytest.fixture(scope="session")
def sentiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that can be learned: parquet files of 120 train and 30 validation sentences."""
    folder = tmp_path_factory.mktemp("sentiment")
    texts = random.Random(0).sample(TEXTS, k=len(TEXTS))
    for name, part in (("train", texts[:120]), ("validation", texts[120:])):
        labels = [int(text.endswith(GOOD)) for text in part]
        pq.write_table(pa.table({"text": part, "label": labels}), folder / f"{name}.parquet")
    return folder


def _save(
    model_class: "type[PreTrainedModel]",
    config: "PretrainedConfig",
    tokenizer: "PreTrainedTokenizerFast",
    folder: Path,
) -> Path:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
