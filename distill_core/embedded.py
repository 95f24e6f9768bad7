"""The embedded default of `demo`: text that every install has, and a teacher fine-tuned on it.

The text is what the installed libraries say of themselves: which library is this docstring from?
"""

import ast
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
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from tokenizers.trainers import WordPieceTrainer
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, set_seed

from distill_core.batches import open_tokenized, tokenize
from distill_core.config import DataSource, LossWeights, TrainingSettings
from distill_core.dataset import read_dataset
from distill_core.errors import DataError
from distill_core.files import new_folder
from distill_core.heads import SequenceClassification
from distill_core.training import Job, Listener, distill

LIBRARIES = (
    "matplotlib",
    "mlflow",
    "pandas",
    "prefect",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "sympy",
    "torch",
    "transformers",
)
"""Import names of the labels: locked dependencies, own or of others, with 2,200 texts or more."""

ROWS_A_LIBRARY = 2_000
_TEST_SHARE = 0.075  # 1,500 rows: a difference of 0.03 in accuracy is seen
_VALIDATION_SHARE = 0.04  # 800 rows, since every epoch pays for them
_LEAST_CHARACTERS, _MOST_CHARACTERS = 30, 400

MASK = "library"
"""Stands where a library is named, so that no text says its own label."""
_OTHER_NAMES = r"scikit.learn|numpy|networkx|hugging ?face"
_SHORT_NAMES = r"np|pd|plt|mpl|sp|sa|nx|hf"

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_VOCABULARY = 8_000
MAX_LENGTH = 64
"""Tokens, of teacher and pipeline; nineteen of twenty texts are shorter."""
_LAYERS, _WIDTH, _HEADS = 6, 256, 4


def make_data(
    folder: Path, seed: int, libraries: Sequence[str] = LIBRARIES, rows: int = ROWS_A_LIBRARY
) -> tuple[str, ...]:
    """Write {train,validation,test}.parquet, columns `text` and `label`; no text is in there twice.

    The same seed and installed versions give the same rows in the same order.

    Args:
        folder: replaced if it is there.
        seed: decides which files are read, and which rows become which split.
        libraries: import names; they are looked up, not imported.
        rows: most texts of each library.

    Returns:
        The labels, in the order of the alphabet.

    Raises:
        DataError: a library is not installed.
    """
    labels = tuple(sorted(libraries))
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
    seen: set[str] = set()
    for label in labels:
        texts = list(islice(_new_texts(_package_folder(label), seed, labels, seen), rows))
        random.Random(seed).shuffle(texts)  # neighbours come from one file
        test = round(_TEST_SHARE * len(texts))
        train = test + round(_VALIDATION_SHARE * len(texts))
        for name, start, end in (
            ("test", 0, test),
            ("validation", test, train),
            ("train", train, None),
        ):
            splits[name] += [(text, label) for text in texts[start:end]]
    with new_folder(folder) as draft:
        for name, pairs in splits.items():
            random.Random(seed).shuffle(pairs)
            texts_, labels_ = zip(*pairs, strict=True)
            pq.write_table(pa.table({"text": texts_, "label": labels_}), draft / f"{name}.parquet")
    return labels


def _package_folder(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"the embedded text is read from {name}, which is not installed: make install"
        )
    return Path(spec.submodule_search_locations[0])


def _new_texts(root: Path, seed: int, names: Sequence[str], seen: set[str]) -> Iterator[str]:
    for text in (mask_names(paragraph, names) for paragraph in first_paragraphs(root, seed)):
        if _LEAST_CHARACTERS <= len(text) <= _MOST_CHARACTERS and text.casefold() not in seen:
            seen.add(text.casefold())
            yield text


def first_paragraphs(root: Path, seed: int) -> Iterator[str]:
    """Yield the first paragraph of every docstring of a package, each on one line.

    Files come in an order that only their names and the seed decide; tests and the code of others
    that a package carries are left out. Nothing is imported or executed.
    """
    files = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if not any(_foreign(part) for part in path.relative_to(root).parts)
    )
    random.Random(seed).shuffle(files)
    for name in files:
        for docstring in _docstrings(root / name):
            yield " ".join(docstring.split("\n\n")[0].split())


def _foreign(part: str) -> bool:
    return part.startswith("test") or part in ("externals", "_vendor")


def _docstrings(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of other people's escapes
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # some packages carry templates that are no Python yet
            return
    yield from filter(None, map(ast.get_docstring, _documented(tree)))


def _documented(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    yield node
    for child in node.body:
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
    """Train a BERT of 6 layers, width 256, from scratch on what `make_data` wrote.

    Args:
        data_folder: with train and validation.
        folder: where the model goes, in transformers' layout; replaced if it is there.
        seed: decides the first weights, dropout and the order of rows.
        listen: told of every step and every validation.
        max_steps: stop after this many batches.

    Returns:
        `accuracy` on validation, `chance` (of guessing among the labels) and `seconds`.

    Raises:
        DataError: the data cannot be read.
        TrainingError: the loss is no longer a number.
    """
    start = time.perf_counter()
    train = pq.read_table(data_folder / "train.parquet")
    head = SequenceClassification(tuple(sorted(set(train["label"].to_pylist()))))
    tokenizer = train_tokenizer(train["text"].to_pylist())
    settings = TrainingSettings(
        epochs=6, batch_size=32, learning_rate=5e-4, seed=seed, max_steps=max_steps
    )
    splits = read_dataset(DataSource(source=str(data_folder)), head, seed)
    with new_folder(folder) as draft, TemporaryDirectory(dir=folder.parent) as scratch:
        tokenize(splits, tokenizer, MAX_LENGTH, Path(scratch) / "tokens")
        rows = open_tokenized(Path(scratch) / "tokens")
        job = Job(rows["train"], rows["validation"], head, LossWeights(), settings)
        trained = distill(_new_model(head.labels, len(tokenizer), seed), None, job, listen)
        trained.model.save_pretrained(draft, safe_serialization=True)
        tokenizer.save_pretrained(draft)
    accuracy = max(record.metrics["accuracy"] for record in trained.epochs)
    seconds = time.perf_counter() - start
    return {"accuracy": accuracy, "chance": 1 / len(head.labels), "seconds": round(seconds, 1)}


def train_tokenizer(texts: Sequence[str]) -> BertTokenizerFast:
    """Return a lower-casing WordPiece tokenizer of at most 8,000 tokens, learnt from texts."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder()
    trainer = WordPieceTrainer(
        vocab_size=_VOCABULARY, special_tokens=list(_SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    numbers = {token: tokenizer.token_to_id(token) for token in _SPECIAL_TOKENS}
    tokenizer.post_processor = BertProcessing(
        ("[SEP]", numbers["[SEP]"]), ("[CLS]", numbers["[CLS]"])
    )
    return BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_LENGTH)


def _new_model(labels: Sequence[str], vocabulary: int, seed: int) -> BertForSequenceClassification:
    set_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=_WIDTH,
            num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS,
            intermediate_size=4 * _WIDTH,
            max_position_embeddings=MAX_LENGTH,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
    )
