"""Which splits have labels: the rule for heads that can do without, and for those that cannot."""

import pytest

from distill_core.columns import labelled_splits
from distill_core.config import Columns
from distill_core.errors import ConfigError
from distill_core.heads.masked_language_modelling import MaskedLanguageModelling
from distill_core.heads.sentence_embeddings import SentenceEmbeddings
from distill_core.heads.sequence_classification import SequenceClassification

CLASSES = SequenceClassification(("negative", "positive"))
WORDS = MaskedLanguageModelling(())
VECTORS = SentenceEmbeddings((), "mean")
BARE, SCORED = ["text", "pair"], ["text", "pair", "label", "score"]
PAIRS = {"pair": "pair"}


def labelled(present, head=VECTORS, **columns):
    return labelled_splits(present, Columns(**columns), head)


def test_a_head_that_needs_labels_reads_them_in_every_split():
    present = {"train": BARE, "test": BARE}
    assert labelled(present, CLASSES) == ({"train", "test"}, ())
    with pytest.raises(ConfigError, match=r"data\.columns\.label: null, and sequence-classif"):
        labelled(present, CLASSES, label=None)


def test_a_head_without_labels_reads_none():
    assert labelled({"train": SCORED}, WORDS) == (set(), ())


@pytest.mark.parametrize(
    "present",
    [
        {"train": BARE},
        {"train": SCORED, "validation": BARE},
        {"train": SCORED, "validation": SCORED, "test": BARE},
        {"train": BARE, "test": SCORED},  # its validation rows come from train
    ],
)
def test_where_rows_that_are_scored_have_no_column_of_the_default_name_none_is_read(present):
    splits, (note,) = labelled(present, **PAIRS)
    assert splits == set()
    assert note == "no column 'label': each text's pair is looked for among those of the split"


def test_rows_to_train_on_need_no_labels_beside_a_validation_split():
    present = {"train": BARE, "validation": SCORED}
    assert labelled(present, **PAIRS, label="score") == ({"validation"}, ())
    splits, (note,) = labelled({**present, "train": SCORED}, **PAIRS)
    assert splits == {"train", "validation"}
    assert "data.columns.label: null does without" in note


def test_a_column_that_the_file_names_is_asked_for_and_null_is_none():
    present = {"train": SCORED, "validation": BARE}
    assert labelled(present, **PAIRS, label="score") == ({"train", "validation"}, ())
    assert labelled(present, **PAIRS, label=None) == (set(), ())


def test_a_head_that_is_scored_on_pairs_asks_for_their_column():
    with pytest.raises(ConfigError, match=r"data\.columns\.pair: sentence-embeddings is scored on"):
        labelled({"train": SCORED})
