"""Data sets: what is read, and what is said of a wrong one."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from distill_core.config import Columns, DataSource
from distill_core.data_files import data_fingerprint
from distill_core.dataset import Splits, read_dataset
from distill_core.errors import ConfigError, DataError, SourceUnreachable
from distill_core.heads.masked_language_modelling import MaskedLanguageModelling
from distill_core.heads.sentence_embeddings import SentenceEmbeddings
from distill_core.heads.sequence_classification import SequenceClassification

HEAD = SequenceClassification(("negative", "positive"))
ODD = ["", "NA", "null", "nan", 'said "so", twice', "two\nlines", "é 日本 🎬", "  spaces  ", "0"]
SENTENCES = [*ODD, *(f"sentence {number}" for number in range(31))]
OTHERS = [f"other {number}" for number in range(4)]
LABELS = [number % 2 for number in range(40)]


def write(
    folder: Path, name: str, texts: Any = SENTENCES, labels: Any = LABELS, **more: Any
) -> None:
    """Write a file in the format that its name ends with."""
    path = folder / name
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts, "label": labels, **more}), path)
    elif path.suffix == ".jsonl":
        rows = [{"text": t, "label": n} for t, n in zip(texts, labels, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *zip(texts, labels, strict=True)])


def read(
    folder: Path, head: SequenceClassification = HEAD, seed: int = 0, **columns: str
) -> Splits:
    return read_dataset(DataSource(source=str(folder), columns=Columns(**columns)), head, seed)


def refusal(folder: Path, **columns: str) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, **columns)
    return str(caught.value).replace(str(folder), "DATA")


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    write(tmp_path, f"train.{ending}")
    write(tmp_path, f"validation.{ending}", OTHERS, LABELS[:4])
    splits = read(tmp_path)
    assert splits.train[:] == {"text": SENTENCES, "label": LABELS}
    assert splits.validation[:] == {"text": OTHERS, "label": LABELS[:4]}
    assert (splits.test, splits.notes, splits.evaluation) == (None, (), "validation")


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_a_split_may_stand_in_parts_as_on_the_hub(tmp_path: Path, ending: str) -> None:
    for part in (0, 1, 2):
        of_part = slice(part * 15, part * 15 + 15)
        name = f"train-{part:05}-of-00003.{ending}"
        write(tmp_path, name, SENTENCES[of_part], LABELS[of_part])
    write(tmp_path, f"validation-00000-of-00001.{ending}", OTHERS, LABELS[:4])
    splits = read(tmp_path)
    assert splits.train[:] == {"text": SENTENCES, "label": LABELS}
    assert splits.validation[:] == {"text": OTHERS, "label": LABELS[:4]}
    digest = data_fingerprint(DataSource(source=str(tmp_path)))
    (tmp_path / f"train-00002-of-00003.{ending}").unlink()
    says = "DATA: train-00000-of-00003.{0}, train-00001-of-00003.{0}: 2 files are there; accepted: as many"
    assert says.format(ending) in refusal(tmp_path)
    for part in (0, 1):
        path = tmp_path / f"train-{part:05}-of-00003.{ending}"
        path.rename(path.with_name(path.name.replace("-of-00003", "-of-00002")))
    assert len(read(tmp_path).train) == 30
    assert data_fingerprint(DataSource(source=str(tmp_path))) != digest


@pytest.mark.parametrize(
    "name", ["valid.csv", "val.jsonl", "dev.parquet", "dev-00000-of-00001.csv"]
)
def test_validation_may_have_another_name(tmp_path: Path, name: str) -> None:
    write(tmp_path, "train.parquet")
    write(tmp_path, name, OTHERS, LABELS[:4])
    splits = read(tmp_path)
    assert splits.validation["text"][:] == OTHERS
    assert splits.notes == ()
    write(tmp_path, "validation.csv")
    assert "holds validation.csv and" in refusal(tmp_path)


def test_parts_of_unlike_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train-00000-of-00002.parquet")
    write(tmp_path, "train-00001-of-00002.parquet", labels=[str(label) for label in LABELS])
    assert "train-00000-of-00002.parquet and what follows it: columns are unlike" in refusal(
        tmp_path
    )


def test_a_split_in_parts_and_whole_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "train.csv")
    write(tmp_path, "train-00000-of-00001.parquet")
    message = "DATA holds train.csv and train-00000-of-00001.parquet; keep one file a split"
    assert message in refusal(tmp_path)


def test_each_split_may_have_a_format_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet")
    write(tmp_path, "validation.csv")
    write(tmp_path, "test.jsonl", SENTENCES[:6], LABELS[:6])
    splits = read(tmp_path)
    assert splits.evaluation == "test"
    assert {name: len(rows) for name, rows in splits.named().items()} == {
        "train": 40,
        "validation": 40,
        "test": 6,
    }


def test_columns_are_read_by_the_names_of_the_pipeline_file(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet", sentence=[f"x {t}" for t in SENTENCES], mood=LABELS[::-1])
    write(tmp_path, "validation.parquet", sentence=SENTENCES, mood=LABELS)
    splits = read(tmp_path, text="sentence", label="mood")
    assert splits.train.column_names == ["text", "label"]
    assert splits.train[1] == {"text": "x NA", "label": 0}


def test_labels_may_be_the_teachers_names(tmp_path: Path) -> None:
    for name in ("train.csv", "validation.csv"):
        write(tmp_path, name, labels=[HEAD.labels[label] for label in LABELS])
    assert read(tmp_path).train["label"][:] == LABELS


def class_labels(folder: Path, names: Sequence[str], labels: Sequence[int] = LABELS) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(names))})
    rows = Dataset.from_dict({"text": SENTENCES, "label": list(labels)}, features=features)
    rows.to_parquet(folder / "train.parquet")


@pytest.mark.parametrize(
    ("names", "teachers_names", "labels"),
    [
        (("positive", "negative"), ("negative", "positive"), [1 - label for label in LABELS]),
        (("0", "1"), ("negative", "positive"), LABELS),
        (("bad", "good"), ("LABEL_0", "LABEL_1"), LABELS),
        (("positive", "negative"), ("NEGATIVE", "POSITIVE"), [1 - label for label in LABELS]),
    ],
)
def test_named_classes_are_matched_by_name_unless_one_side_has_no_names(
    tmp_path: Path, names: tuple[str, ...], teachers_names: tuple[str, ...], labels: list[int]
) -> None:
    class_labels(tmp_path, names)
    splits = read(tmp_path, SequenceClassification(teachers_names))
    rows = dict(zip(splits.train["text"][:], splits.train["label"][:], strict=True))
    assert rows.items() <= dict(zip(SENTENCES, labels, strict=True)).items()


@pytest.mark.parametrize("teachers_names", [("good", "BAD"), ("LABEL_0", "LABEL_1")])
def test_classes_that_have_another_name_in_the_data_set_may_be_told(
    tmp_path: Path, teachers_names: tuple[str, str]
) -> None:
    class_labels(tmp_path, ("neg", "pos"))
    head = SequenceClassification(teachers_names)
    names = dict(zip(("pos", "neg"), teachers_names, strict=True))
    source = DataSource(source=str(tmp_path), label_names=names)
    train = read_dataset(source, head, seed=0).train
    assert train["label"][:] == [1 - LABELS[SENTENCES.index(text)] for text in train["text"][:]]


def test_classes_of_other_names_are_refused_with_what_would_tell_them(tmp_path: Path) -> None:
    class_labels(tmp_path, ("neg", "pos"))
    assert (
        "row 0 has the label 'neg'; accepted: 0 to 1, or one of negative, positive; "
        "data.label_names: {'neg': …} says which of them it is"
    ) in refusal(tmp_path)


def test_a_name_for_a_class_that_the_teacher_has_not_is_refused(tmp_path: Path) -> None:
    class_labels(tmp_path, ("neg", "pos"))
    source = DataSource(source=str(tmp_path), label_names={"neg": "negativ"})
    with pytest.raises(ConfigError) as caught:
        read_dataset(source, HEAD, seed=0)
    assert str(caught.value) == (
        "data.label_names.neg: 'negativ' is no class of the teacher; accepted: negative, positive"
    )


def test_named_classes_that_the_teacher_does_not_know_are_refused(tmp_path: Path) -> None:
    class_labels(tmp_path, ("bad", "good"))
    assert "column label: row 0 has the label 'bad'; accepted: 0 to 1, or one of" in refusal(
        tmp_path
    )


def test_a_missing_validation_split_is_taken_from_train_in_the_shares_of_the_classes(
    tmp_path: Path,
) -> None:
    texts = [f"row {number}" for number in range(400)]
    write(tmp_path, "train.parquet", texts, [int(number % 4 == 0) for number in range(400)])
    splits = read(tmp_path, seed=7)
    assert splits.notes == ("no validation split: 40 of 400 train rows were held out with seed 7",)
    assert Counter(splits.validation["label"][:]) == {0: 30, 1: 10}
    assert sorted(splits.train["text"][:] + splits.validation["text"][:]) == sorted(texts)


def test_the_seed_decides_which_rows_are_held_out(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet")
    held_out = [read(tmp_path, seed=seed).validation["text"][:] for seed in (0, 0, 1)]
    assert held_out[0] == held_out[1] != held_out[2]


def test_a_small_train_split_gives_one_row_of_each_class(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet", SENTENCES[:6], LABELS[:6])
    splits = read(tmp_path)
    assert (len(splits.train), sorted(splits.validation["label"][:])) == (4, [0, 1])


def test_a_class_of_a_single_row_cannot_be_split(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet", SENTENCES, [1] + [0] * 39)
    assert "no validation split, and none can be taken from 40 train rows" in refusal(tmp_path)


@pytest.mark.parametrize("missing", [-1, -1.0, "", None])
def test_a_test_split_without_labels_is_left_alone_with_a_note(
    tmp_path: Path, missing: float | str | None
) -> None:
    write(tmp_path, "train.parquet")
    write(tmp_path, "validation.parquet", OTHERS, LABELS[:4])
    write(tmp_path, "test.parquet", labels=[missing] * 40)
    splits = read(tmp_path)
    assert splits.test is None
    assert splits.notes == ("test has no labels, so it is not used",)


def test_rows_that_a_column_of_classes_has_no_label_for_are_left_out(tmp_path: Path) -> None:
    class_labels(tmp_path, HEAD.labels, [-1, *LABELS[1:39], -1])
    write(tmp_path, "validation.parquet", OTHERS, LABELS[:4])
    splits = read(tmp_path)
    assert splits.train["text"][:] == SENTENCES[1:39]
    assert splits.train["label"][:] == LABELS[1:39]
    assert splits.notes == ("train: 2 of 40 rows have no label (-1), and were left out",)


def test_a_train_split_of_which_no_row_has_a_label_is_refused(tmp_path: Path) -> None:
    class_labels(tmp_path, HEAD.labels, [-1] * 40)
    assert "train: column label: row 0 has the label -1; accepted" in refusal(tmp_path)


def test_a_test_split_with_some_labels_missing_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet")
    write(tmp_path, "test.parquet", labels=[0, 1, -1, *LABELS[3:]])
    assert "DATA: test: column label: row 2 has the label -1; accepted: 0 to 1" in refusal(tmp_path)


def test_texts_alone_are_read_for_a_head_that_needs_no_labels(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet")
    splits = read_dataset(DataSource(source=str(tmp_path)), MaskedLanguageModelling(()), seed=0)
    assert splits.train.column_names == splits.validation.column_names == ["text"]
    assert sorted(splits.train["text"][:] + splits.validation["text"][:]) == sorted(SENTENCES)


def test_pairs_are_read_with_their_scores_where_there_are_some(tmp_path: Path) -> None:
    pairs = {"text": SENTENCES, "other": SENTENCES[::-1]}
    pq.write_table(pa.table(pairs), tmp_path / "train.parquet")
    for name in ("validation", "test"):
        scored = {**pairs, "score": [float(n) for n in LABELS]}
        pq.write_table(pa.table(scored), tmp_path / f"{name}.parquet")
    head = SentenceEmbeddings((), "mean")
    splits = read_dataset(
        DataSource(source=str(tmp_path), columns=Columns(pair="other", label="score")), head, 0
    )
    assert splits.train.column_names == ["text", "pair"]
    assert splits.validation[1] == {"text": "NA", "pair": SENTENCES[-2], "label": 1.0}
    found = read_dataset(DataSource(source=str(tmp_path), columns=Columns(pair="other")), head, 0)
    assert found.test.column_names == ["text", "pair"]
    assert found.notes[0].startswith("no column 'label': each text's pair is looked for")


# Refusals


def test_a_folder_without_train_lists_what_it_holds(tmp_path: Path) -> None:
    message = "data.source: DATA: no train.parquet, train.jsonl or train.csv; the folder holds "
    assert refusal(tmp_path) == f"{message}nothing"
    write(tmp_path, "training.csv")
    (tmp_path / "train.csv").mkdir()
    assert refusal(tmp_path) == f"{message}train.csv, training.csv"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.source: .*/nowhere is not a folder$"):
        read(tmp_path / "nowhere")


def test_two_files_of_a_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train.csv")
    write(tmp_path, "train.parquet")
    message = "data.source: DATA holds train.parquet and train.csv; keep one file a split"
    assert refusal(tmp_path) == message


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"text": "txt"}, "no column 'txt'; there are text, label: set data.columns.text: text"),
        (
            {"label": "labels"},
            "no column 'labels'; there are text, label: set data.columns.label: label",
        ),
        (
            {"text": "q"},
            "no column 'q'; there are text, label: set data.columns.text to one of them",
        ),
    ],
)
def test_a_missing_column_names_the_nearest_one(
    tmp_path: Path, columns: dict[str, str], says: str
) -> None:
    write(tmp_path, "train.parquet")
    assert refusal(tmp_path, **columns) == f"DATA: train: {says}"


def test_rows_without_a_text_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet", [*SENTENCES[:5], None, *SENTENCES[6:39], None])
    says = "column text: row 5 is empty, as are 2 in all; drop or fill them"
    assert refusal(tmp_path) == f"DATA: train: {says}"


@pytest.mark.parametrize(
    ("texts", "holds"),
    [(list(range(40)), "int64"), (pa.nulls(40), "null"), ([["a"]] * 40, "list<item: string>")],
)
def test_a_column_that_is_no_text_is_refused(tmp_path: Path, texts: Any, holds: str) -> None:
    write(tmp_path, "train.parquet", texts)
    assert refusal(tmp_path) == f"DATA: train: column text: holds {holds}, not text"


@pytest.mark.parametrize("label", [2, -1, None])
def test_a_label_out_of_range_is_named_with_its_row(tmp_path: Path, label: int | None) -> None:
    write(tmp_path, "train.parquet", labels=[*LABELS[:39], label])
    says = f"column label: row 39 has the label {label}; accepted: 0 to 1, or one of negative"
    assert says in refusal(tmp_path)


@pytest.mark.parametrize("labels", [[0.0, 1.0], ["good", "bad"], [[0], [1]], [True, False]])
def test_labels_of_other_kinds_are_refused(tmp_path: Path, labels: list[Any]) -> None:
    write(tmp_path, "train.parquet", labels=labels * 20)
    says = f"column label: row 0 has the label {labels[0]!r}; accepted: 0 to 1"
    assert says in refusal(tmp_path)


def test_a_split_of_one_class_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet")
    write(tmp_path, "validation.parquet", labels=[1] * 40)
    assert "DATA: validation: column label: all rows have one label" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl", "train.csv"])
def test_a_split_without_rows_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, pa.array([], pa.string()), pa.array([], pa.int64()))
    message = refusal(tmp_path)
    assert message.startswith(f"DATA/{name}: ")
    assert "is empty" in message or "has no rows" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.parquet", b"PAR1 and then nonsense" * 9),
        ("train.jsonl", b'{"text": "a", "label": 0}\n{"text": '),
        ("train.csv", b'text,label\n"never closed,0\nb,1\n'),
        ("train.csv", b"text,label\na,0\nb,1,2,3\n"),
        ("train.csv", "text,label\ncafé,0\nb,1\n".encode("latin-1")),
    ],
)
def test_a_corrupt_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    ending = name.removeprefix("train.")
    assert refusal(tmp_path).startswith(f"DATA/{name}: has no rows, or is not {ending}: ")


def test_a_parquet_file_damaged_in_its_middle_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet")
    content = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(content[:10] + bytes(200) + content[210:])
    assert refusal(tmp_path).startswith("DATA/train.parquet: has no rows, or is not parquet: ")


@pytest.mark.parametrize("name", ["da[t]a*", "with space", "a#b%20c", "日本"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    write(tmp_path / name, "train.parquet")
    assert len(read(tmp_path / name).train) == 36


# Fingerprints and the hub


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    seen = []
    for name, texts in (("a", SENTENCES), ("b", SENTENCES), ("c", SENTENCES[::-1])):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "train.csv", texts)
        (tmp_path / name / f"notes-{name}.txt").write_text("not read")
        seen.append(data_fingerprint(DataSource(source=str(tmp_path / name))))
    assert seen[0] == seen[1] != seen[2]


def test_reading_a_folder_looks_up_no_address_and_connects_to_nothing(tmp_path: Path) -> None:
    seen: list[str] = []
    network = ("socket.getaddrinfo", "socket.connect")
    sys.addaudithook(lambda event, _: seen.append(event) if event in network else None)
    for name in ("train.csv", "validation.parquet", "test.jsonl"):
        write(tmp_path, name)
    read(tmp_path)
    assert seen == []
    with pytest.raises(SourceUnreachable):
        data_fingerprint(DataSource(source="owner/data"))
    assert seen != []  # so it would have been seen


def test_a_hub_that_does_not_answer_is_worth_a_retry() -> None:
    # tests/conftest.py points the hub at a port that refuses connections.
    with pytest.raises(
        SourceUnreachable, match=r"^data\.source: owner/data: the hub did not answer"
    ):
        data_fingerprint(DataSource(source="owner/data"))
