"""A file in onnxruntime's own format, and the operators that a reduced build of it needs."""

import re
import subprocess
import sys
from pathlib import Path

from distill_core.errors import ExportError

ORT_FILE = "model_quantized.ort"
OPERATORS_FILE = "model_quantized.required_operators.config"
CONVERTER = """
import runpy, sys
sys.modules["torch"] = None  # which onnxruntime.tools imports where it can: two of three seconds
runpy.run_module("onnxruntime.tools.convert_onnx_models_to_ort", run_name="__main__", alter_sys=True)
"""


def write_ort(model: Path, x86: bool) -> None:
    """Write `NAME.ort` and `NAME.required_operators.config` beside `NAME.onnx`.

    By onnxruntime's own converter, in a process of its own, since it sets up logging and prints. Constants
    are folded: what is packed on disk as an ONNX file is not as an ORT file.

    Args:
        model: an ONNX file.
        x86: whether it will run on x86-64; elsewhere int8 is kept where x86 would prefer uint8.

    Raises:
        ExportError: onnxruntime cannot convert it.
    """
    command = [sys.executable, "-c", CONVERTER]
    options = ["--optimization_style", "Fixed", "--target_platform", "amd64" if x86 else "arm"]
    done = subprocess.run(
        [*command, *options, model.name], cwd=model.parent, capture_output=True, text=True
    )
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise ExportError(
            f"{model}: onnxruntime cannot write it in its own format: {''.join(reason)}; accepted: "
            "graph.ort_format: false"
        )
    needed = model.with_suffix(".required_operators.config")
    # Its header names the file by where it stood on this machine.
    text = re.sub(r"^# - .*/", "# - ", needed.read_text(encoding="utf-8"), flags=re.MULTILINE)
    needed.write_text(text, encoding="utf-8")
