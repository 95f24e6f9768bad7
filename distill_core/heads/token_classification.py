"""A label for each word: named entities and the like."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from distill_core.errors import DataError
from distill_core.heads.head import Head
from distill_core.heads.scores import Labels, f1
from distill_core.heads.sequence_classification import Classes

NOT_COUNTED = -100
"""Of tokens that no word starts with; torch's cross entropy leaves this label out by default."""


class TokenClassification(Head):
    """A label for each word, on its first piece; entities are scored whole."""

    name = "token-classification"
    architecture_suffix = "ForTokenClassification"
    auto_class = "AutoModelForTokenClassification"
    onnx_task = "token-classification"
    main_metric = "f1"
    text_columns = ("tokens",)
    label_column = "tags"
    label_type = pa.list_(pa.int64())
    kind = "a tagger of words"
    reading = (
        "Each token has a logit for each tag, and its tag is the one with the largest; a word's tag is that "
        "of its first piece, and special tokens have none."
    )
    single_label = True
    empty_class = "O"

    @classmethod
    def fits(cls, problem_type: str | None, labels: int) -> bool:
        """Whatever the config says of problems, which is about texts."""
        return labels > 1

    def read_labels(self, values: Collection[Any], where: str) -> Iterator[list[int]]:
        """Turn lists of numbers or names of classes into class numbers."""
        classes = Classes(self.labels)
        for row, tags in enumerate(values):
            yield [classes.number(value, f"{where}: row {row}") for value in tags or ()]

    def check_rows(
        self, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str | None], where: str
    ) -> None:
        """Check that every row has words, and a tag for each."""
        for number, row in enumerate(rows):
            words, tags = row["tokens"], row["tags"]
            if len(words) != len(tags) or not words:
                raise DataError(
                    f"{where}: row {number} has {len(words)} words in {columns['tokens']} and {len(tags)} "
                    f"in {columns['tags']}; accepted: as many, and at least one"
                )

    def encode(
        self, rows: Mapping[str, list[Any]], tokenizer: Any, max_length: int
    ) -> dict[str, list[Any]]:
        """Tokenize words, and give each word's tag to its first piece; words cut off are not scored."""
        encoded = tokenizer(
            rows["tokens"], is_split_into_words=True, truncation=True, max_length=max_length
        )
        labels = [_align(encoded.word_ids(row), tags) for row, tags in enumerate(rows["tags"])]
        return {**rows, **encoded, "label": labels}

    def texts(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the words as a text."""
        return (" ".join(row["tokens"]),)

    def count(self, batch: Mapping[str, Any]) -> tuple[int, int]:
        """Return all tokens but padding, and the first pieces of words."""
        labels = batch.get("labels", batch["attention_mask"])
        return int(batch["attention_mask"].sum()), int((labels != NOT_COUNTED).sum())

    def positions(
        self,
        logits: Float[Any, "batch tokens classes"],
        attention_mask: Int[Any, "batch tokens"],
    ) -> Float[Any, "positions classes"]:
        """Return the logits of all tokens but padding: the teacher has something to say on each."""
        return logits[attention_mask.bool()]

    def task_loss(
        self, logits: Float[Any, "batch tokens classes"], labels: Int[Any, "batch tokens"]
    ) -> Float[Any, ""]:
        """Cross entropy with the tags, mean over first pieces: L = −log softmax(z)[y], of tensors."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NOT_COUNTED)

    def units(
        self, output: Float[np.ndarray, "tokens classes"], row: Mapping[str, Any]
    ) -> Float[np.ndarray, "units classes"]:
        """Return the logits of the first piece of each word."""
        counted = np.asarray(row["label"]) != NOT_COUNTED
        return np.asarray(output[: len(counted)][counted])

    def read_units(self, columns: Mapping[str, Sequence[Any]]) -> Labels:
        """Return the tags of all words."""
        counted = [[tag for tag in tags if tag != NOT_COUNTED] for tags in columns["label"]]
        rows = np.repeat(np.arange(len(counted)), [len(tags) for tags in counted])
        return Labels(np.asarray([tag for tags in counted for tag in tags], dtype=np.int64), rows)

    def predict(self, logits: Float[np.ndarray, "units classes"]) -> Int[np.ndarray, " units"]:
        """Return the class with the largest logit of each word."""
        return np.asarray(logits.argmax(axis=-1))

    def metrics(self, predictions: Int[np.ndarray, " units"], labels: Labels) -> dict[str, float]:
        """Return F1, precision and recall of whole entities, and the accuracy of tags."""
        true, false, missed = self.statistics(predictions, labels).sum(axis=0)
        return {
            "f1": float(f1(np.array([true, false, missed]))),
            "precision": float(true / max(true + false, 1)),
            "recall": float(true / max(true + missed, 1)),
            "tag_accuracy": float(np.mean(predictions == labels.values)),
        }

    def statistics(
        self, predictions: Int[np.ndarray, " units"], labels: Labels
    ) -> Float[np.ndarray, "rows parts"]:
        """Return true positives, false positives and false negatives among the entities of a row.

        An entity counts where both its words and its kind are right (Tjong Kim Sang and De Meulder
        2003, "Introduction to the CoNLL-2003 Shared Task", section 2.3).
        """
        names = np.asarray(self.labels)
        starts = np.searchsorted(labels.rows, np.arange(int(labels.rows[-1]) + 2))
        counts = []
        for start, end in pairwise(starts):
            said = entities(names[predictions[start:end]].tolist())
            true = entities(names[labels.values[start:end]].tolist())
            counts.append((len(said & true), len(said - true), len(true - said)))
        return np.asarray(counts, dtype=float)

    def main_score(self, sums: Float[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
        """F1 of entities."""
        return f1(sums)

    def answer(self, logits: Float[np.ndarray, "tokens classes"], row: Mapping[str, Any]) -> str:
        """Return the name of the tag of each token, special ones included."""
        return " ".join(self.labels[number] for number in logits.argmax(axis=-1))


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return kind, first word and last word of each entity in the tags of one text.

    Tags are B-KIND, I-KIND and O, and an entity starts where its kind does, B or not, as the
    scorer of CoNLL-2003 reads them. Tags without a dash are kinds of single words.
    """
    found: list[tuple[str, int, int]] = []
    open_kind = None
    for word, tag in enumerate(tags):
        place, dash, kind = tag.partition("-")
        if not dash:
            place, kind = "B", tag
        if tag != "O" and place == "I" and kind == open_kind:
            found[-1] = (kind, found[-1][1], word)
        elif tag != "O":
            found.append((kind, word, word))
        open_kind = None if tag == "O" else kind
    return set(found)


def _align(word_ids: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    """Return the tag of each token that starts a word, and `NOT_COUNTED` for all others."""
    before = [None, *word_ids[:-1]]
    return [
        NOT_COUNTED if word is None or word == last else tags[word]
        for word, last in zip(word_ids, before, strict=True)
    ]
