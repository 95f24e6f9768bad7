"""The script inside a bundle, run as somebody without distill-deploy would."""

import subprocess
import sys
from pathlib import Path

_RUN = """
import runpy, sys
sys.modules["distill_core"] = sys.modules[sys.argv[1]] = None  # what cannot be imported
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def check_alone(bundle: Path, code: int, *options: str, without: str = "distill_core") -> str:
    """Run the script of a bundle alone, and return what it prints.

    Args:
        bundle: the folder.
        code: exit code that is expected.
        options: of the script.
        without: a package that is not installed there.
    """
    command = [sys.executable, "-I", "-c", _RUN, without, str(bundle / "verify.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=bundle)
    assert done.returncode == code, done.stderr
    return done.stdout
