"""The embedded default of `demo`: text that every install has, and a teacher fine-tuned on it.

The text is what the installed libraries say of themselves: which library is this docstring from?
"""

import ast
import gc
import random
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import BertWordPieceTokenizer, Tokenizer
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, set_seed

from distill_core.batches import open_tokenized, tokenize
from distill_core.config import DataSource, TrainingSettings
from distill_core.dataset import read_dataset
from distill_core.errors import DataError
from distill_core.files import new_folder
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.job import Job
from distill_core.loss_weights import LossWeights
from distill_core.training import Listener, distill

LIBRARIES = (
    "matplotlib", "mlflow", "pandas", "prefect", "scipy",
    "sklearn", "sqlalchemy", "sympy", "torch", "transformers",
)  # fmt: skip
"""Import names of the labels: locked dependencies, our own or of others, of over 2,200 texts each."""

ROWS_A_LIBRARY = 2_000
_TEST_SHARE, _VALIDATION_SHARE = 0.075, 0.04  # 1,500 rows; and 800, which every epoch pays for
_LEAST_CHARACTERS, _MOST_CHARACTERS = 30, 400
MASK = "library"
"""Stands where a library is named, so that no text says its own label."""
_OTHER_NAMES = r"scikit.learn|numpy|networkx|hugging ?face"
_SHORT_NAMES = r"np|pd|plt|mpl|sp|sa|nx|hf"

MAX_LENGTH = 48
"""Tokens, of teacher and pipeline; about 19 of 20 texts are shorter."""
_VOCABULARY = 8_000
_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_SETTINGS = TrainingSettings(epochs=3, batch_size=32, learning_rate=7e-4)
"""At 2e-3, and at 1.5e-3 in batches of 64, training never left chance."""


def make_data(
    folder: Path, seed: int, libraries: Sequence[str] = LIBRARIES, rows: int = ROWS_A_LIBRARY
) -> tuple[str, ...]:
    """Write {train,validation,test}.parquet, columns `text` and `label`; no text is there twice.

    The same seed and installed versions give the same rows in the same order. `libraries` are
    looked up, not imported; `rows` is the most texts of each. Returns the labels, sorted.

    Raises:
        DataError: a library is not installed.
    """
    labels = tuple(sorted(libraries))
    splits: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    seen: set[str] = set()
    shuffle = random.Random(seed).shuffle
    for label in labels:
        texts = islice(_new_texts(_package_folder(label), seed, labels, seen), rows)
        pairs = [{"text": text, "label": label} for text in texts]
        shuffle(pairs)  # neighbours come from one file
        test = round(_TEST_SHARE * len(pairs))
        train = test + round(_VALIDATION_SHARE * len(pairs))
        splits["test"] += pairs[:test]
        splits["validation"] += pairs[test:train]
        splits["train"] += pairs[train:]
    with new_folder(folder) as draft:
        for name, pairs in splits.items():
            shuffle(pairs)
            pq.write_table(pa.Table.from_pylist(pairs), draft / f"{name}.parquet")
    return labels


def _package_folder(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the embedded text: {name} is not installed; run make install")
    return Path(next(iter(spec.submodule_search_locations)))


def _new_texts(root: Path, seed: int, names: Sequence[str], seen: set[str]) -> Iterator[str]:
    for paragraph in first_paragraphs(root, seed):
        if _LEAST_CHARACTERS <= len(paragraph) <= _MOST_CHARACTERS:
            text = mask_names(paragraph, names)
            if text.casefold() not in seen:
                seen.add(text.casefold())
                yield text


def first_paragraphs(root: Path, seed: int) -> Iterator[str]:
    """Yield the first paragraph of every docstring of a package, each on one line.

    Files come in an order that only their names and the seed decide; tests, and the code of others
    that a package carries, are left out. Nothing is imported or executed.
    """
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    files = [file for file in files if not re.search(r"(^|/)(test|externals/|_vendor/)", file)]
    random.Random(seed).shuffle(files)
    for file in files:
        for docstring in _docstrings((root / file).read_bytes()):
            yield " ".join(docstring.split("\n\n")[0].split())


def _docstrings(source: bytes) -> list[str]:
    gc.disable()  # beside torch's many objects, collecting doubles the time of parsing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of other people's escapes
            return list(filter(None, map(ast.get_docstring, _documented(ast.parse(source)))))
    except (SyntaxError, ValueError):  # some packages carry templates that are no Python yet
        return []
    finally:
        gc.enable()


def _documented(node: ast.AST) -> Iterator[Any]:
    yield node
    for child in getattr(node, "body", ()):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child)


def mask_names(text: str, names: Sequence[str]) -> str:
    """Replace every word that names a library, or holds such a name, by `MASK`."""
    long_names = "|".join([*map(re.escape, names), _OTHER_NAMES])
    pattern = rf"\w*(?:{long_names})\w*|\b(?:{_SHORT_NAMES})\b"
    return re.sub(pattern, MASK, text, flags=re.IGNORECASE)


def make_teacher(
    data_folder: Path, folder: Path, seed: int, listen: Listener, max_steps: int | None = None
) -> dict[str, Any]:
    """Train a BERT of 6 layers and width 128, from scratch, on what `make_data` wrote.

    `folder` takes transformers' layout, and is replaced if it is there. `max_steps` stops early.
    Returns `accuracy` on validation, `chance` (guessing among the labels), `max_length` (tokens)
    and `seconds`.

    Raises:
        DataError: the data cannot be read.
        TrainingError: the loss is no longer a number.
    """
    start = time.perf_counter()
    train = pq.read_table(data_folder / "train.parquet")
    head = SequenceClassification(tuple(sorted(set(train["label"].to_pylist()))))
    tokenizer = train_tokenizer(train["text"].to_pylist())
    splits = read_dataset(DataSource(source=str(data_folder)), head, seed)
    settings = _SETTINGS.model_copy(update={"seed": seed, "max_steps": max_steps})
    with new_folder(folder) as draft, TemporaryDirectory(dir=folder.parent) as scratch:
        tokenize(splits, head, tokenizer, MAX_LENGTH, Path(scratch) / "tokens")
        rows = open_tokenized(Path(scratch) / "tokens")
        job = Job(rows["train"], rows["validation"], head, LossWeights(), settings)
        trained = distill(_new_model(head.labels, len(tokenizer), seed), None, job, listen)
        trained.model.save_pretrained(draft, safe_serialization=True)
        tokenizer.save_pretrained(draft)
    return {
        "accuracy": max(record.metrics["accuracy"] for record in trained.epochs),
        "chance": 1 / len(head.labels),
        "max_length": MAX_LENGTH,
        "seconds": round(time.perf_counter() - start, 1),
    }


def train_tokenizer(texts: Sequence[str]) -> BertTokenizerFast:
    """Return a lower-casing WordPiece tokenizer of at most 8,000 tokens; the same for the same texts."""
    learner = BertWordPieceTokenizer()
    characters = sorted(set("".join(map(learner.normalize, texts)).replace(" ", "")))
    # Left to itself the trainer numbers these in the order of a hash map, another in every process,
    # and breaks ties between merges by those numbers.
    special = [*_SPECIAL_TOKENS, *(f"##{character}" for character in characters)]
    learner.train_from_iterator(texts, _VOCABULARY, special_tokens=special, show_progress=False)
    finished = BertWordPieceTokenizer(vocab=learner.get_vocab())  # where they are no special tokens
    rust = Tokenizer.from_str(finished.to_str())
    return BertTokenizerFast(tokenizer_object=rust, model_max_length=MAX_LENGTH)


def _new_model(labels: Sequence[str], vocabulary: int, seed: int) -> BertForSequenceClassification:
    set_seed(seed)
    config = BertConfig(
        vocab_size=vocabulary,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        hidden_size=128,  # of 256, a step takes twice the time and learns no more
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=MAX_LENGTH,
        hidden_dropout_prob=0.05,  # three epochs from scratch leave little to overfit
        attention_probs_dropout_prob=0.05,
    )
    return BertForSequenceClassification(config)
