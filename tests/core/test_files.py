"""Digests, and files and folders that are whole or not there."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_core.errors import OutputError
from distill_core.files import (
    copy_tree,
    file_digest,
    files_digest,
    is_disk_full,
    new_file,
    new_folder,
    read_json,
    size_bytes,
    taken,
    value_digest,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_digest_of_a_file_is_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    # FIPS 180-2, appendix B.1: SHA-256 of "abc".
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(tmp_path / "abc") == known


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())))
def test_the_digest_of_a_value_ignores_the_order_of_its_keys(value: dict[str, object]) -> None:
    assert value_digest(dict(reversed(value.items()))) == value_digest(value)


def test_the_digest_of_a_value_tells_types_and_nesting_apart() -> None:
    values = [{"a": 1}, {"a": "1"}, {"a": 1.5}, {"a": [1]}, {"b": 1}, ["a", 1], None, ""]
    assert len({value_digest(value) for value in values}) == len(values)


def test_the_digest_of_files_follows_names_and_contents_and_not_the_place(tmp_path: Path) -> None:
    digests = []
    for place, name, text in [("x", "a", "1"), ("y", "a", "1"), ("z", "b", "1"), ("w", "a", "2")]:
        (tmp_path / place).mkdir()
        (tmp_path / place / name).write_text(text)
        digests.append(files_digest((tmp_path / place).iterdir(), tmp_path / place))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_json_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    value = {"θ": [1, 2.5, None, "é"], "nested": {"a": True}}
    write_json(tmp_path / "deep" / "value.json", value)
    assert read_json(tmp_path / "deep" / "value.json") == value


def test_a_file_keeps_its_old_content_when_writing_the_new_one_fails(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", "old")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "value.json", object())
    assert read_json(tmp_path / "value.json") == "old"
    assert names(tmp_path) == ["value.json"]


def test_a_new_file_has_its_name_only_once_it_is_whole(tmp_path: Path) -> None:
    with new_file(tmp_path / "report.html") as draft:
        draft.write_text("half")
        assert not (tmp_path / "report.html").exists()
        draft.write_text("whole")
    assert (tmp_path / "report.html").read_text() == "whole"
    assert names(tmp_path) == ["report.html"]


def test_a_new_folder_replaces_the_one_that_stood_there(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with new_folder(tmp_path / "bundle") as draft:
            (draft / name).write_text(name)
            assert draft.parent == tmp_path
    assert names(tmp_path) == ["bundle", "bundle/second"]


def test_a_folder_stays_as_it_was_when_making_the_new_one_fails(tmp_path: Path) -> None:
    with new_folder(tmp_path / "bundle") as draft:
        (draft / "old").touch()
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "bundle") as draft:
        (draft / "new").touch()
        1 / 0  # noqa: B018 - any failure will do
    assert names(tmp_path) == ["bundle", "bundle/old"]


def test_a_new_folder_can_be_read_by_others(tmp_path: Path) -> None:
    with new_folder(tmp_path / "bundle"):
        pass
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o755


def test_a_folder_is_taken_by_one_at_a_time(tmp_path: Path) -> None:
    again = pytest.raises(OutputError, match=r"runs: another run writes there")
    with taken(tmp_path / "runs"), again, taken(tmp_path / "runs"):
        pass
    with taken(tmp_path / "runs"):
        assert (tmp_path / "runs").is_dir()


def test_taking_a_folder_clears_away_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / ".bundle.abc.partial" / "onnx").mkdir(parents=True)
    (tmp_path / ".bundle.abc.partial" / "onnx" / "model.onnx").touch()
    (tmp_path / ".bundle.abc.partial.old").mkdir()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".report.json.77.partial").touch()
    (tmp_path / "report.json").touch()
    with taken(tmp_path):
        assert names(tmp_path) == [".lock", "deep", "report.json"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(OutputError, match=r"file/runs: cannot be written: Not a directory")
    with refused, taken(tmp_path / "file" / "runs"):
        pass


def test_a_full_disk_is_recognised_behind_the_errors_of_libraries() -> None:
    full = OSError(28, os.strerror(28))
    arrow = ValueError("Arrow: [errno 28] No space left on device")
    wrapped = RuntimeError("cannot save")
    wrapped.__cause__ = full
    assert all(is_disk_full(error) for error in (full, arrow, wrapped))
    assert not any(is_disk_full(error) for error in (None, OSError(2, "x"), ValueError("row 28")))


def test_a_copied_tree_has_the_same_files_beside_those_that_were_there(tmp_path: Path) -> None:
    (tmp_path / "from" / "onnx").mkdir(parents=True)
    (tmp_path / "from" / "onnx" / "model").write_text("new")
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "kept").touch()
    copy_tree(tmp_path / "from", tmp_path / "to")
    assert names(tmp_path / "to") == ["kept", "onnx", "onnx/model"]
    assert (tmp_path / "to" / "onnx" / "model").read_text() == "new"


def test_the_size_of_a_folder_is_the_bytes_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "deep" / "b").write_bytes(bytes(300))
    assert size_bytes(tmp_path) == 310


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_the_digest_of_a_value_is_the_sha256_of_its_json(value: object) -> None:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass")
    assert value_digest(value) == hashlib.sha256(text).hexdigest()
