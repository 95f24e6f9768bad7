"""What every head tells the rest of the house."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int, Shaped

from distill_core.heads.scores import Labels
from distill_core.pooling import Pooling


@dataclass(frozen=True)
class Head(ABC):
    """What a model was fine-tuned for: columns, losses, answers and scores.

    The methods that compute losses import torch inside: `check` does without its seconds.
    """

    labels: tuple[str, ...]
    """The name of each class, in the order of the logits."""
    pooling: Pooling | None = None
    """How the vectors of a text's tokens become one, where the head needs that."""

    name: ClassVar[str]
    architecture_suffix: ClassVar[str]
    auto_class: ClassVar[str]
    onnx_task: ClassVar[str]
    main_metric: ClassVar[str]
    text_columns: ClassVar[tuple[str, ...]]
    """Keys of data.columns that hold text; `pair`, where the head reads one, may be left out."""
    needs_pair: ClassVar[bool] = False
    encoded_rows: ClassVar[int] = 1
    """How many encoded rows a row becomes, if its texts are not too long."""
    has_windows: ClassVar[bool] = False
    """Whether of a text that is too long several rows are made, in place of cutting it."""
    label_column: ClassVar[str | None]
    """Key of data.columns that holds the labels; None where the texts alone say what is right."""
    label_type: ClassVar[pa.DataType | None] = None
    """Of labels that are more than a number each."""
    without_labels: ClassVar[str | None] = None
    """How models are scored where the data have no labels; None where they must have some."""
    has_classes: ClassVar[bool] = True
    """Whether the logits are of classes that the config names; `labels` are none otherwise."""
    scored_columns: ClassVar[tuple[str, ...]] = ("label",)
    """Columns of tokenized rows that say what their units should be answered."""
    reads_plain_text: ClassVar[bool] = True
    """Whether a text that nobody prepared is something to learn from."""
    taught_by_labels: ClassVar[bool] = True
    """Whether there is something to learn without a teacher."""
    answers_in_tokens: ClassVar[bool] = False
    """Whether the logits are of the tokens of the vocabulary, so that none of them can be left out."""
    inputs_change: ClassVar[bool] = False
    """Whether every epoch reads other inputs, so that what the teacher said of one cannot be kept."""
    kind: ClassVar[str]
    """What the model is, for the README of a bundle: "a text classifier"."""
    reading: ClassVar[str]
    """How an app reads the logits, for the same."""
    empty_class: ClassVar[str | None] = None
    """The class of what is nothing in particular, of which a text may be throughout."""
    single_label: ClassVar[bool] = False
    """Whether a unit has exactly one of the classes, so that classes can count unlike."""
    agreeing: ClassVar[str] = "same answer as the teacher"
    """What `agreement` counts, for the same."""
    tolerance: ClassVar[float] = 0.1
    """Largest difference of a golden number on another processor: of logits of 12 layers, 0.03 were seen
    between x86 with VNNI and arm64."""

    @property
    def may_find_nothing(self) -> bool:
        """Whether there is such a class."""
        return self.empty_class in self.labels

    @classmethod
    @abstractmethod
    def fits(cls, problem_type: str | None, labels: int) -> bool:
        """Tell whether a model with this head's architecture is one of them.

        Args:
            problem_type: of config.json.
            labels: number of labels.
        """

    def of_folder(self, folder: Path) -> "Head":
        """Return this head as the files beside a model's config.json complete it.

        Raises:
            TeacherError: they ask for something that is not supported.
        """
        return self

    @abstractmethod
    def read_labels(self, values: Collection[Any], where: str) -> Iterable[Any]:
        """Check a column of labels, and turn classes into numbers.

        Args:
            values: as they stand in the data set.
            where: file and column, for the message.

        Returns:
            An array of numbers, or one after the other what is of `label_type`.

        Raises:
            DataError: a label that the teacher cannot give.
        """

    def check_rows(  # noqa: B027 - most heads have nothing to check
        self, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str | None], where: str
    ) -> None:
        """Check what the columns of a row promise of each other: nothing, in most heads.

        Args:
            rows: the head's columns, by key, each checked for itself.
            columns: the name of each in the data set, for the message.
            where: the file, for the same.

        Raises:
            DataError: a row whose columns contradict each other.
        """

    def encode(
        self, rows: Mapping[str, list[Any]], tokenizer: Any, max_length: int
    ) -> dict[str, list[Any]]:
        """Return checked rows as the model reads them: token ids, masks, `label`, and their texts.

        Args:
            rows: the head's columns, by key.
            tokenizer: the teacher's, a PreTrainedTokenizerFast.
            max_length: longer texts are cut to this many tokens, the special ones included.

        Returns:
            Columns of one length, which need not be that of the rows.
        """
        texts = [rows[key] for key in self.text_columns if key in rows]
        return {**rows, **tokenizer(*texts, truncation=True, max_length=max_length)}

    def for_training(self, row: Mapping[str, Any], seed: int, epoch: int) -> Mapping[str, Any]:
        """Return an encoded row as it is learnt from in an epoch.

        Args:
            row: as `encode` gave it, with its number under `row`.
            seed: of the training; with epoch and number it decides whatever is drawn.
            epoch: from 0.
        """
        return row

    def texts(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what an app would hand to the tokenizer for a row: a text, or two."""
        return tuple(row[key] for key in self.text_columns if key in row)

    def read_texts(
        self, texts: Sequence[str], tokenizer: Any, max_length: int
    ) -> Mapping[str, Any]:
        """Return what a model reads of the texts of one row, as `encode` would, without a label.

        Args:
            texts: as `texts` gives them.
            tokenizer: the teacher's, a PreTrainedTokenizerFast.
            max_length: longer texts are cut to this many tokens, the special ones included.
        """
        # As a batch of one: a second text that is empty would otherwise be taken for none.
        batch = tokenizer(*([text] for text in texts), truncation=True, max_length=max_length)
        return {name: rows[0] for name, rows in batch.items()}

    def run(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        labels: Shaped[Any, "batch ..."] | None,
        **options: Any,
    ) -> Any:
        """Return the outputs of a PyTorch model for a batch, in transformers' form.

        Args:
            model: a PreTrainedModel.
            inputs: what it reads.
            labels: of the batch, or None; a head that reads few of the logits may compute those alone.
            options: for the model's own call.
        """
        return model(**inputs, **options)

    def read_output(
        self, outputs: Mapping[str, Any], attention_mask: Int[Any, "batch ..."]
    ) -> Float[Any, "batch ..."]:
        """Return what counts as the logits among a model's outputs, of tensors or of arrays.

        Args:
            outputs: by name, of a PyTorch model or an ONNX file.
            attention_mask: of the batch.
        """
        return outputs["logits"]

    def count(self, batch: Mapping[str, Any]) -> tuple[int, int]:
        """Return how many positions of a batch are softened, and how many labels it has.

        Args:
            batch: of tensors, as `collate` makes it.
        """
        return len(batch["input_ids"]), len(batch["input_ids"])

    def positions(
        self, logits: Float[Any, "batch ..."], attention_mask: Int[Any, "batch ..."]
    ) -> Float[Any, "positions classes"]:
        """Return the logits that are softened and compared with the teacher's, of tensors."""
        return logits

    def soft_loss(
        self,
        student_logits: Float[Any, "positions classes"],
        teacher_logits: Float[Any, "positions classes"],
        temperature: float,
    ) -> Float[Any, ""]:
        """Return the distance of the student's answers to the teacher's, of tensors."""
        from distill_core.soft_targets import soft_target_loss

        return soft_target_loss(student_logits, teacher_logits, temperature)

    @abstractmethod
    def task_loss(
        self, logits: Float[Any, "batch ..."], labels: Shaped[Any, "batch ..."]
    ) -> Float[Any, ""]:
        """Return the task's own loss on the labels, mean over what counts, of tensors."""

    def by_row(
        self, outputs: Float[np.ndarray, "..."], labels: Shaped[np.ndarray, "batch ..."]
    ) -> Sequence[Float[np.ndarray, "..."]]:
        """Return what `run` gave of each row of a batch."""
        return list(outputs)

    def units(
        self, output: Float[np.ndarray, "..."], row: Mapping[str, Any]
    ) -> Float[np.ndarray, "units classes"]:
        """Return the logits of a row that are scored.

        Args:
            output: the model's answer to one row, padding included.
            row: as `encode` gave it.
        """
        return output[None]

    def read_units(self, columns: Mapping[str, Sequence[Any]]) -> Labels:
        """Return the labels of all rows, in the order of `units`.

        Args:
            columns: the `scored_columns` of the rows, as `encode` gave them.
        """
        labels = np.asarray(columns["label"])
        return Labels(labels, np.arange(len(labels)))

    @abstractmethod
    def predict(
        self, logits: Float[np.ndarray, "units classes"]
    ) -> Shaped[np.ndarray, "units ..."]:
        """Return the answer of each unit, in the form of the labels."""

    @abstractmethod
    def metrics(
        self, predictions: Shaped[np.ndarray, "units ..."], labels: Labels
    ) -> dict[str, float]:
        """Return all scores; the main one is among them."""

    def main_metric_of(self, metrics: Mapping[str, float]) -> str:
        """Return the name of the main score among those of some rows, labelled or not."""
        return self.main_metric

    @abstractmethod
    def statistics(
        self, predictions: Shaped[np.ndarray, "units ..."], labels: Labels
    ) -> Float[np.ndarray, "rows parts"]:
        """Return what each row adds to sums that determine the main metric."""

    @abstractmethod
    def main_score(self, sums: Float[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
        """Return the main metric of sums of statistics."""

    def agreement(
        self,
        predictions: Shaped[np.ndarray, "units ..."],
        others: Shaped[np.ndarray, "units ..."],
    ) -> float:
        """Return the share of units that two models answer alike, right or wrong."""
        alike = predictions == others
        return float(np.mean(alike.reshape(len(alike), -1).all(axis=1)))

    def distance(
        self, logits: Float[np.ndarray, "units classes"], others: Float[np.ndarray, "units classes"]
    ) -> float:
        """Return how far two models' logits are from each other: the mean squared difference."""
        return float(np.square(logits - others).mean())

    @abstractmethod
    def answer(self, logits: Float[np.ndarray, "..."], row: Mapping[str, Any]) -> str:
        """Say what a model's output for one row means.

        Args:
            logits: of the row.
            row: as `read_texts` gave it.
        """

    def same_answer(
        self,
        logits: Float[np.ndarray, "..."],
        others: Float[np.ndarray, "..."],
        row: Mapping[str, Any],
        other_row: Mapping[str, Any],
    ) -> bool:
        """Tell whether two outputs for one text mean the same; rows may be cut or filled up unlike."""
        return self.answer(logits, row) == self.answer(others, other_row)

    def golden(self, logits: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Return the numbers of an output that an app must reproduce."""
        return logits
