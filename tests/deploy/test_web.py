"""The web page in Chromium, served from this machine, with a bundle copied beside it."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE_S
from tests.deploy.bundles import TASKS
from tests.deploy.conftest import Make

pytestmark = pytest.mark.integration

BROWSE = Path(__file__).parent / "browse.mjs"
Open = Callable[..., dict[str, Any]]

TYPED = {
    "question-answering": {"text": "film", "pair": "The film was rather moving"},
    "multiple-choice": {"text": "The film", "choices": "was very good\nwas bad\nwas very dull"},
    "regression": {"text": "The film was good", "pair": "The plot was good"},
    "sentence-embeddings": {"text": "The film was good", "pair": "The film was good"},
    "masked-language-modelling": {"text": "The [MASK] was very good"},
}
SHOWN = {
    "sequence-classification": "positive",
    "multi-label-classification": "film",
    "regression": "",
    "token-classification": "film",
    "question-answering": "by",
    "multiple-choice": "was very good",
    "masked-language-modelling": "%",
    "sentence-embeddings": "[",
}
"""Part of what stands below the answer; models with random weights answer anything."""


@pytest.fixture(scope="module")
def site(samples: Path) -> Iterator[str]:
    """The page as its README makes it, with no bundle yet."""
    web = samples / "web"
    subprocess.run(["node", "assemble.mjs"], cwd=web, check=True, timeout=PATIENCE_S)
    with subprocess.Popen(
        ["node", "serve.mjs", "0"], cwd=web, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.fixture
def browse(samples: Path, site: str) -> Open:
    """Open the page with a bundle of its folder, type something, and return what is shown."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not here: make verifiers")
    script = shutil.copy(BROWSE, samples / BROWSE.name)

    def open_page(bundle: str, typed: dict[str, str], *options: str) -> dict[str, Any]:
        command = ["node", str(script), f"{site}?bundle={bundle}", json.dumps(typed), *options]
        environment = {**os.environ, "CHROMIUM": chromium}
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return open_page


@pytest.mark.parametrize("task", TASKS)
def test_the_page_proves_a_bundle_of_every_task_and_answers(
    samples: Path, bundle_of: Make, browse: Open, task: str
) -> None:
    shutil.copytree(bundle_of(task), samples / "web" / task)
    seen = browse(task, TYPED.get(task, {"text": "The film was very good"}))
    assert seen["state"] == "passed", seen
    assert "14 of 14 golden examples answered as published" in seen["verdict"]
    assert seen["label"]
    assert SHOWN[task] in seen["details"]
    assert "median of 20" in seen["times"]
    assert seen["messages"] == []


def test_the_page_opens_and_answers_without_a_network_once_it_was_loaded(
    samples: Path, bundle_of: Make, browse: Open, site: str
) -> None:
    shutil.copytree(bundle_of("sequence-classification"), samples / "web" / "offline")
    seen = browse("offline", {"text": "The film was very good"}, "offline=yes")
    assert seen["state"] == "passed", seen
    assert seen["label"] in ("negative", "positive")
    assert seen["hosts"] == [site.removeprefix("http://").strip("/")]


def test_the_page_says_what_is_not_as_published(
    samples: Path, bundle_of: Make, browse: Open
) -> None:
    folder = shutil.copytree(bundle_of("sequence-classification"), samples / "web" / "damaged")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["golden"][0]["logits"][0] += 1
    manifest["golden"][1]["inputs"]["input_ids"][0] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    seen = browse("damaged", {"text": "The film was very good"})
    assert seen["state"] == "failed"
    assert "2 of 14 golden examples are not as published" in seen["verdict"]
    assert "Example 0 answers otherwise: differs by 1.00, the tolerance is 0.1" in seen["problems"]
    assert "Example 1 tokenizes otherwise: input_ids[0] is 2, expected 3" in seen["problems"]


def test_the_page_says_where_a_bundle_belongs_if_there_is_none(browse: Open) -> None:
    seen = browse("nothing", {})
    assert seen["state"] == "failed"
    assert "nothing/manifest.json: the server says 404. Copy a bundle to here" in seen["verdict"]
