"""What a student must beat: floors that learn, and are told from the student with their interval."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import PreTrainedModel

from distill_core.baselines import compare, measure_floors, verdict
from distill_core.evaluation import model_logits, read_labels, score
from distill_core.heads import Labels
from distill_core.heads.multi_label import MultiLabelClassification
from distill_core.heads.regression import Regression
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.heads.token_classification import TokenClassification
from distill_core.teacher import load_model


@pytest.fixture
def words(tiny_bert: Path) -> torch.Tensor:
    return load_model(tiny_bert).get_input_embeddings().weight


def test_both_floors_learn_what_one_word_decides(
    rows: DatasetDict, head: SequenceClassification, words: torch.Tensor
) -> None:
    floors = measure_floors(head, words, rows["train"], rows["validation"], seed=0)
    assert list(floors) == ["tf-idf", "static embeddings"]
    labels = read_labels(head, rows["validation"])
    for logits in floors.values():
        assert logits.shape == (30, 2)
        assert score(head, logits, labels)["accuracy"] > 0.9


def test_the_tf_idf_floor_is_scikit_learns_pipeline(
    rows: DatasetDict, head: SequenceClassification, words: torch.Tensor
) -> None:
    logits = measure_floors(head, words, rows["train"], rows["validation"], seed=0)["tf-idf"]
    # Numbers as words of two letters and more, which is what its own analyzer reads.
    texts = {
        name: [" ".join(f"t{number}" for number in ids) for ids in split["input_ids"]]
        for name, split in rows.items()
    }
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = LogisticRegression(max_iter=1000)
    model.fit(vectorizer.fit_transform(texts["train"]), rows["train"]["label"][:])
    expected = model.predict(vectorizer.transform(texts["validation"]))
    assert head.predict(logits).tolist() == expected.tolist()


def test_static_embeddings_are_the_mean_of_a_texts_words(head: SequenceClassification) -> None:
    # Class 1 where the second number of the mean is large; word 2 alone has it.
    table = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.9, 1.0]])
    train = Dataset.from_dict(
        {
            "input_ids": [[0, 1], [1], [2, 2], [2]] * 5,
            "text": ["a b", "b c", "c d", "d a"] * 5,
            "label": [0, 0, 1, 1] * 5,
        }
    )
    asked = Dataset.from_dict(
        {"input_ids": [[2, 2, 0], [1, 0, 0]], "text": ["a", "b"], "label": [1, 0]}
    )
    logits = measure_floors(head, table, train, asked, seed=0)["static embeddings"]
    assert head.predict(logits).tolist() == [1, 0]


def test_a_class_that_no_row_has_is_never_answered() -> None:
    three = SequenceClassification(("a", "b", "c"))
    features = np.array([[0.0], [1.0]] * 4)
    labels = Labels(np.array([0, 2] * 4), np.arange(8))
    logits = three.linear_logits(features, labels, features)
    assert three.predict(logits).tolist() == [0, 2] * 4
    assert (logits[:, 1] == -np.inf).all()


def test_other_heads_have_the_linear_model_that_fits_their_labels() -> None:
    features = np.linspace(-1, 1, 40)[:, None]
    rows = np.arange(40)
    topics = MultiLabelClassification(("low", "high", "always"))
    several = np.stack([features[:, 0] < 0, features[:, 0] > 0, np.ones(40)], axis=1)
    logits = topics.linear_logits(features, Labels(several.astype(float), rows), features)
    assert (topics.predict(logits) == several).mean() > 0.95
    scores = Regression(("score",))
    said = scores.predict(
        scores.linear_logits(features, Labels(3 * features[:, 0], rows), features)
    )
    assert scores.metrics(said, Labels(3 * features[:, 0], rows))["spearman"] == pytest.approx(1)


def test_a_head_that_answers_words_has_no_floors(rows: DatasetDict, words: torch.Tensor) -> None:
    tagger = TokenClassification(("O", "B-X"))
    assert measure_floors(tagger, words, rows["train"], rows["validation"], seed=0) == {}


def test_a_student_is_compared_row_by_row(
    rows: DatasetDict, head: SequenceClassification, fitted_teacher: PreTrainedModel
) -> None:
    good = model_logits(fitted_teacher, head, rows["validation"])
    worse = compare("coin", head, np.flip(good, axis=0).copy(), good, rows["validation"], seed=0)
    assert worse["student_above"]["low"] > 0
    alike = compare("itself", head, good, good, rows["validation"], seed=0)
    assert alike["student_above"] == {"difference": 0, "low": 0, "high": 0}
    (note,) = verdict([worse, alike], "accuracy")
    assert note.startswith("itself reaches accuracy 1.0000: the student is not clearly better")
