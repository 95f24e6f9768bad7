"""Where a file's answers can be had: other instruction sets, other runtimes, the oldest ones.

What runs there are the scripts `answer_*` of this folder, which need the runtime alone. `make verifiers`
brings the emulators, runtimes and packages; a machine without them has fewer of these places, and says so.
"""

from distill_core.verifiers.answers import Asked, Question, ask
from distill_core.verifiers.bundle_answers import (
    ROWS,
    describe,
    find_verifiers,
    golden_problems,
    verify_answers,
)
from distill_core.verifiers.table import VERIFIERS, Verifier
from distill_core.verifiers.tools import FOLDER, Place, wasm_timer

__all__ = [
    "FOLDER",
    "ROWS",
    "VERIFIERS",
    "Asked",
    "Place",
    "Question",
    "Verifier",
    "ask",
    "describe",
    "find_verifiers",
    "golden_problems",
    "verify_answers",
    "wasm_timer",
]
