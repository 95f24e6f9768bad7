"""A run that is told to stop: it ends soon and tidily, with the exit code of a stopped command."""

import os
import signal
import sys
import time
from contextlib import suppress
from threading import Event, Thread, Timer
from types import FrameType

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

_stopped = Event()
"""Set by Ctrl-C or a signal to stop."""

_ended = Event()
"""Set when a command is over, and Python begins to shut down."""


def stop_at_signals() -> None:
    """Let Ctrl-C and `kill` stop what runs, as an error would."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def end() -> None:
    """Say that the command is over, so that a stopped one is asked no more."""
    _ended.set()


def leave_if_stopped() -> None:
    """Leave without taking Python apart, in the midst of what libraries' threads and `_leave` still do."""
    if _stopped.is_set():
        with suppress(OSError):
            sys.stdout.flush()
        _exit()


def _stop(signal_number: int, frame: FrameType | None) -> None:
    """Stop as at an error, so that nothing half-made is left and the embedded server ends too."""
    # Past sys.stderr, which may be in the middle of a line. Ctrl-C ends `tee`, who read it, as well.
    with suppress(OSError):
        os.write(2, b"distill-deploy: stopped; what is finished will not be made again\n")
    signal.signal(signal.SIGINT, _interrupt)
    _stopped.set()
    Thread(target=_leave, daemon=True).start()
    _interrupt(signal_number, frame)  # typer ends with the exit code STOPPED


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; while an extension module starts, a moment later.

    Its C code calls Python, and may not expect that to fail: onnx's, which nanobind made, then crashes.
    """
    if _starts_an_extension(frame):
        Timer(0.05, _ask_again).start()
    else:
        raise KeyboardInterrupt


def _starts_an_extension(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_qualname.startswith("ExtensionFileLoader."):  # of importlib
            return True
        frame = frame.f_back
    return False


def _ask_again() -> None:
    """Interrupt the main thread, also where it waits for something, which `interrupt_main` does not."""
    os.kill(os.getpid(), signal.SIGINT)


def _leave() -> None:
    """Leave within seconds, whatever still keeps this process.

    Python drops an exception that is raised in a weakref's callback, so ask again. And the terminal
    sends Ctrl-C to Prefect's embedded server too: Prefect then tries for minutes to tell it how the
    run ended.
    """
    if not _ended.wait(2):
        _ask_again()
    time.sleep(3)
    _exit()


def _exit() -> None:
    """Exit at once, with what this process started and no one ends any more.

    Prefect's embedded server starts in a thread of its own, which may be stopped before Prefect
    knows what to end.
    """
    import psutil  # which no command needs that is not stopped

    alive = psutil.Process().children(recursive=True)
    for stop in (psutil.Process.terminate, psutil.Process.kill):
        for child in alive:
            with suppress(psutil.NoSuchProcess):
                stop(child)
        _, alive = psutil.wait_procs(alive, timeout=2)
    os._exit(STOPPED)
