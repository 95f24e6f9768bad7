"""What this machine has to answer rows with: itself, emulators, node and Chromium."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from distill_core.processor import has_vnni, instructions, is_arm64, processor_flags

FOLDER = Path(__file__).parents[2] / ".verifiers"
"""What `make verifiers` fills."""

SCRIPTS = Path(__file__).parent
PYTHON_SCRIPT = str(SCRIPTS / "answer_rows.py")
_EXACT = ("exact",)
"""Its argument: bytes are multiplied without saturating, as `session.open_session` has it."""


@dataclass(frozen=True)
class Place:
    """How a verifier is reached on this machine."""

    before: tuple[str, ...]
    """The command, as far as the folder with the rows, which comes next."""
    after: tuple[str, ...] = ()
    through: str = ""
    """What stands between this machine and the runtime, with versions."""
    environment: Mapping[str, str] = field(default_factory=dict)
    made_from: str = ""
    """Packages and their versions, where `make verifiers` brought them."""


def this_machine(through: str = "") -> Place:
    """Return this process's own Python and onnxruntime."""
    return Place((sys.executable, PYTHON_SCRIPT), _EXACT, through=through or instructions())


def vnni(folder: Path) -> Place | None:
    """Find VNNI in this machine."""
    return this_machine() if has_vnni() else None


def x86_without_vnni(folder: Path) -> Place | None:
    """Find AVX2 without VNNI: in this machine, or emulated around its own Python."""
    if platform.machine() != "x86_64":
        return None
    if "avx2" in processor_flags() and not has_vnni():
        return replace(this_machine(), after=())
    if sys.platform != "linux":
        return None
    emulator = _emulator(folder, "qemu-x86_64-static")
    if emulator is None:
        return None
    return Place(
        (emulator, "-cpu", "Haswell", sys.executable, PYTHON_SCRIPT),
        through=f"{_version(emulator)}, Haswell",
    )


def arm64(folder: Path, cpu: str, dot_product: bool, packages: str = "packages") -> Place | None:
    """Find arm64: this machine, if it is one that has what the processor has, or emulated.

    Args:
        folder: of `make verifiers`.
        cpu: as QEMU calls it.
        dot_product: whether that processor multiplies bytes by the dot product instructions.
        packages: folder of the runtime to take where it is emulated: `oldest` is another one.
    """
    if is_arm64() and packages == "packages":
        apple = sys.platform == "darwin"  # all of them have it
        if dot_product == (apple or "asimddp" in processor_flags()):
            return this_machine("dot product" if dot_product else "no dot product")
    emulator, home = _emulator(folder, "qemu-aarch64-static"), folder / "arm64"
    python = home / "root" / "usr" / "bin" / "python3.11"
    if emulator is None or not python.is_file() or not (home / packages).is_dir():
        return None
    return Place(
        (emulator, "-L", str(home / "root"), "-cpu", cpu, str(python), PYTHON_SCRIPT),
        through=f"{_version(emulator)}, {cpu}",
        environment={"PYTHONPATH": str(home / packages), "PYTHONNOUSERSITE": "1"},
        made_from=_recipe(home),
    )


def oldest_onnxruntime(folder: Path) -> Place | None:
    """Find the oldest onnxruntime that targets promise, of this machine's instruction set."""
    home = folder / "oldest"
    if not _recipe(home).startswith("python{}.{},".format(*sys.version_info)):
        return None
    return Place(
        (sys.executable, PYTHON_SCRIPT),
        _EXACT,
        through=instructions(),
        environment={"PYTHONPATH": str(home / "packages")},
        made_from=_recipe(home),
    )


def node(folder: Path, package: str) -> Place | None:
    """Find node, and a package of onnxruntime-web in one version."""
    command, packages = shutil.which("node"), folder / "node_modules"
    if command is None or not (packages / package).is_dir():
        return None
    return Place(
        (command, str(SCRIPTS / "answer_rows.mjs")),
        (str(packages), package),
        through=f"node {_version(command)}",
        made_from=package_version(packages, package),
    )


def wasm_timer(folder: Path = FOLDER) -> Place | None:
    """Find what times a file in onnxruntime-web's wasm, as a worker of `distill_core.benchmark` does.

    Node runs WebAssembly by the same engine as Chromium: no speed is emulated.
    """
    place = node(folder, "onnxruntime-web")
    if place is None:
        return None
    command, packages = place.before[0], place.after[0]
    return replace(place, before=(command, str(SCRIPTS / "time_rows.mjs"), packages), after=())


def chromium(folder: Path, library: str, package: str) -> Place | None:
    """Find Chromium, what drives it, and the library that a page loads.

    Args:
        folder: of `make verifiers`.
        library: onnxruntime-web, or transformers.js.
        package: that it is in.
    """
    command, packages = shutil.which("node"), folder / "node_modules"
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    needed = (packages / package, packages / "playwright-core")
    if command is None or browser is None or not all(path.is_dir() for path in needed):
        return None
    return Place(
        (command, str(SCRIPTS / "answer_in_chromium.mjs")),
        (str(packages), browser, library),
        through=f"headless {_version(browser)}",
        made_from=package_version(packages, package),
    )


def package_version(packages: Path, package: str) -> str:
    """Return the version of a node package."""
    text = (packages / package / "package.json").read_text(encoding="utf-8")
    return str(json.loads(text)["version"])


def _recipe(home: Path) -> str:
    path = home / "made-from"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _emulator(folder: Path, name: str) -> str | None:
    ours = folder / "emulators" / name
    return str(ours) if ours.is_file() and os.access(ours, os.X_OK) else shutil.which(name)


@cache
def _version(command: str) -> str:
    """Return a program's name and version as it says them, without what follows."""
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    line = (done.stdout.splitlines() or [""])[0]
    return line.partition(" (")[0].partition(" built on")[0].replace(" version", "").lstrip("v")
