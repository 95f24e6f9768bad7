import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill_core.embedded import first_paragraphs, make_data, make_teacher, mask_names
from distill_core.embedded import train_tokenizer as learn_tokenizer
from distill_core.errors import DataError
from distill_core.files import file_digest
from distill_core.teacher import describe, load_model, load_tokenizer

SPLITS = ("train", "validation", "test")
MODULE = '''"""The module of {name}, number {number}, in a sentence.

Never read on.
"""
raise RuntimeError("imported")

class Thing:
    """A thing of {name} that
    stands over two lines, number {number}."""

    async def act(self):
        """Act on thing {number} with the help of np.zeros."""

def short():
    """Too short."""
'''


def write_package(root: Path, name: str, files: int = 20) -> Path:
    package = root / name
    package.mkdir()
    (package / "__init__.py").touch()
    for number in range(files):
        (package / f"part_{number}.py").write_text(MODULE.format(name=name, number=number))
    return package


@pytest.fixture
def packages(tmp_path, monkeypatch):
    names = ("sample_alpha", "sample_beta")
    for name in names:
        write_package(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    return names


def rows(folder, split):
    return pq.read_table(folder / f"{split}.parquet").to_pylist()


def test_first_paragraphs_are_those_of_modules_classes_and_functions_on_one_line(tmp_path):
    paragraphs = list(first_paragraphs(write_package(tmp_path, "sample_alpha", files=1), seed=0))
    assert paragraphs == [
        "The module of sample_alpha, number 0, in a sentence.",
        "A thing of sample_alpha that stands over two lines, number 0.",
        "Act on thing 0 with the help of np.zeros.",
        "Too short.",
    ]


def test_tests_vendored_code_and_what_is_no_python_are_left_out(tmp_path):
    package = write_package(tmp_path, "sample_alpha", files=0)
    for file in ("tests/a.py", "test_a.py", "deep/_vendor/a.py", "externals/a.py"):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text('"""Somebody else wrote this."""')
    (package / "template.py").write_text('"""Not yet Python."""\nclass {{ name }}:')
    (package / "nul.py").write_bytes(b'"""Not Python."""\0')
    assert list(first_paragraphs(package, seed=0)) == []


def test_strange_escapes_in_a_library_warn_nobody(tmp_path):
    package = write_package(tmp_path, "sample_alpha", files=0)
    (package / "escape.py").write_text('"""Matches \\d and nothing else."""')
    assert list(first_paragraphs(package, seed=0)) == [r"Matches \d and nothing else."]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("A scipy.sparse matrix", "A library.sparse matrix"),
        ("Raises SciPyError or _scipy_core", "Raises library or library"),
        ("np.zeros, for NumPy and scikit-learn", "library.zeros, for library and library"),
        ("An input of a pdf", "An input of a pdf"),
    ],
)
def test_names_of_libraries_are_masked_in_any_case_and_inside_words(text, masked):
    assert mask_names(text, ("scipy",)) == masked


def test_no_text_names_its_library_or_stands_in_two_splits(packages, tmp_path):
    make_data(tmp_path / "data", 0, packages)
    texts = [row["text"] for split in SPLITS for row in rows(tmp_path / "data", split)]
    assert len(texts) == len(set(texts)) > 0
    assert not any("sample_" in text or "np." in text for text in texts)
    assert all(len(text) >= 30 for text in texts)


def test_labels_are_the_import_names_in_order_and_in_every_split(packages, tmp_path):
    write_package(tmp_path, "sample_gamma", files=0)
    (tmp_path / "sample_gamma" / "own.py").write_text(
        "\n".join(
            f'def f{n}():\n    """Words of its own and nobody else\'s, {n}."""' for n in range(60)
        )
    )
    names = ("sample_gamma", "sample_alpha")
    assert make_data(tmp_path / "data", 0, names) == ("sample_alpha", "sample_gamma")
    for split in SPLITS:
        assert {row["label"] for row in rows(tmp_path / "data", split)} == set(names)


def test_each_library_gives_at_most_the_rows_asked_for(packages, tmp_path):
    make_data(tmp_path / "data", 0, packages[:1], rows=40)
    assert [len(rows(tmp_path / "data", split)) for split in SPLITS] == [35, 2, 3]


def test_same_seed_gives_the_same_files_and_another_seed_other_ones(packages, tmp_path):
    for name, seed in (("once", 0), ("again", 0), ("other", 1)):
        make_data(tmp_path / name, seed, packages[:1], rows=40)
    once, again, other = (
        [file_digest(tmp_path / name / f"{split}.parquet") for split in SPLITS]
        for name in ("once", "again", "other")
    )
    assert once == again != other


def test_libraries_are_read_and_never_imported(packages, tmp_path):
    make_data(tmp_path / "data", 0, packages)
    assert not set(packages) & set(sys.modules)


def test_missing_library_is_named_and_leaves_no_folder(tmp_path):
    with pytest.raises(DataError, match="no_such_library is not installed; run make install"):
        make_data(tmp_path / "data", 0, ("no_such_library",))
    assert not (tmp_path / "data").exists()


def test_tokenizer_is_the_same_for_the_same_texts_and_keeps_words_whole(tmp_path):
    texts = [f"Return the matrices of case {number}." for number in range(50)]
    first, second = learn_tokenizer(texts), learn_tokenizer(texts)
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert first.tokenize("Return the Matrices") == ["return", "the", "matrices"]
    assert first.decode(first("return the").input_ids) == "[CLS] return the [SEP]"
    assert "##a" not in first.all_special_tokens


@pytest.mark.slow
def test_real_text_makes_a_teacher_that_opens_as_any_other(tmp_path):
    labels = make_data(tmp_path / "data", 0)
    heard = []
    facts = make_teacher(tmp_path / "data", tmp_path / "teacher", 0, heard.append, max_steps=8)
    description = describe(tmp_path / "teacher")
    assert description.head.labels == labels
    assert (description.layers, description.stack.hidden_size, description.max_length) == (
        6,
        128,
        48,
    )
    assert len(heard) == 9  # eight steps and a validation
    assert facts["chance"] == pytest.approx(0.1)
    assert 0 <= facts["accuracy"] <= 1
    tokenizer = load_tokenizer(tmp_path / "teacher")
    inputs = tokenizer("Return the eigenvalues of a matrix.", return_tensors="pt")
    assert load_model(tmp_path / "teacher")(**inputs).logits.shape == (1, 10)
    assert [len(rows(tmp_path / "data", split)) for split in SPLITS] == [17_700, 800, 1_500]
