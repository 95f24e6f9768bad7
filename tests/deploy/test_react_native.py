"""The React Native sample: assembled, and type-checked with the modules that it shares with the page."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S
from tests.deploy.conftest import MODULES, ROOT, Make

pytestmark = pytest.mark.integration

SAMPLE = ROOT / "deploy" / "react-native"


@pytest.fixture
def app(samples: Path, bundle_of: Make, tmp_path: Path) -> Path:
    """The sample after `npm run assemble`, beside declarations of what it imports."""
    if not (MODULES / "typescript").is_dir():
        pytest.skip("typescript is not here: make verifiers")
    shutil.copytree(ROOT / "deploy" / "js", tmp_path / "js")
    unwanted = shutil.ignore_patterns("node_modules", "js", "bundle")
    folder = shutil.copytree(SAMPLE, tmp_path / "app", ignore=unwanted)
    shutil.copy(ROOT / "tests" / "deploy" / "react-native.d.ts", folder)
    (folder / "node_modules").symlink_to(MODULES, target_is_directory=True)
    bundle = bundle_of("sequence-classification")
    subprocess.run(
        ["node", "assemble.mjs", str(bundle)], cwd=folder, check=True, timeout=PATIENCE_S
    )
    settings = json.loads((folder / "tsconfig.json").read_text())
    settings["files"].append("react-native.d.ts")
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    return folder


def check_types(app: Path) -> subprocess.CompletedProcess[str]:
    command = ["node", str(MODULES / "typescript" / "bin" / "tsc"), "--noEmit", "-p", "."]
    return subprocess.run(
        command, cwd=app, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


def test_types_fit_those_of_the_shared_modules(app: Path) -> None:
    done = check_types(app)
    assert done.returncode == 0, done.stdout


def test_a_name_that_the_shared_modules_do_not_have_is_found(app: Path) -> None:
    text = (app / "App.tsx").read_text()
    (app / "App.tsx").write_text(text.replace("largestDifference", "greatestDifference"))
    assert "greatestDifference" in check_types(app).stdout


def test_every_file_that_the_code_names_is_put_beside_it(app: Path) -> None:
    for name in ("manifest.json", "tokenizer.json", "tokenizer_config.json", "model.onnx"):
        assert f'"./bundle/{name}"' in (app / "files.ts").read_text()
        assert (app / "bundle" / name).is_file()


def test_what_is_no_bundle_is_refused(app: Path) -> None:
    done = subprocess.run(
        ["node", "assemble.mjs", "nowhere"], cwd=app, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert (
        "nowhere: no manifest.json; accepted: a folder as in OUTPUT/bundles/TARGET" in done.stderr
    )
