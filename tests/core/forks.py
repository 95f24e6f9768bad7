"""Processes that have imported what takes seconds, and have nothing else of the one that runs the tests."""

from multiprocessing import get_context
from multiprocessing.context import ForkServerContext

IMPORTED = ["tests.core.test_checkpoint", "tests.core.test_teacher_outputs"]


def fresh_processes() -> ForkServerContext:
    """Return what starts them: forked not from this one, which may have anything open, but from a server."""
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context
