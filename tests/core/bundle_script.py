"""The script inside a bundle, run as somebody without distill-deploy would."""

import subprocess
import sys
from pathlib import Path

_RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.modules["distill_core"] = None  # what cannot be imported
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def check_alone(bundle: Path, code: int, *options: str) -> str:
    """Run the script of a bundle alone, and return what it prints."""
    command = [sys.executable, "-I", "-c", _RUN, str(bundle / "verify.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=bundle)
    assert done.returncode == code, done.stderr
    return done.stdout
