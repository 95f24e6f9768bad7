"""A command that is told to stop, at bad moments for it."""

import os
import subprocess
import sys

import psutil
import pytest

STOPS = """
import ctypes, os, signal, sys, time
from flows import cli, stopping

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
"""

AT_THE_END = f"""
{STOPS}
ctypes.pythonapi.Py_AtExit(ctypes.CDLL(None).abort)
if sys.argv[1] == "stop":
    stopping.stop_at_signals()
    cli.app.command("stop")(lambda: (print("half"), interrupt()))
cli.main()
"""

WHILE_A_MODULE_STARTS = f"""
{STOPS}
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "xml.etree.ElementPath":  # which the module's C code imports
            interrupt()

@cli.app.command()
def stop():
    stopping.stop_at_signals()
    sys.meta_path.insert(0, Finder())
    try:
        import _elementtree
        time.sleep(60)
    except KeyboardInterrupt:
        print("whole" if "_elementtree" in sys.modules else "half")
        raise

cli.main()
"""

WHILE_NOBODY_READS = f"""
{STOPS}
from threading import Thread

@cli.app.command()
def stop():
    stopping.stop_at_signals()
    Thread(target=time.sleep, args=[60]).start()
    interrupt()

cli.main()
"""

WITH_PROCESSES = f"""
{STOPS}
import subprocess

@cli.app.command()
def stop():
    stopping.stop_at_signals()
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    child.stdout.read(1)
    os.write(1, f"{{child.pid}} {{subprocess.Popen(['sleep', '60']).pid}}".encode())
    interrupt()

cli.main()
"""


@pytest.fixture
def ends(clean_environment):
    """Return a function that runs a program, and returns its exit code, what it printed and its messages."""

    def run(program, argument):
        command = [sys.executable, "-c", program, argument]
        done = subprocess.run(
            command, env=clean_environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout.strip(), done.stderr

    return run


@pytest.mark.parametrize(
    ("argument", "code", "printed"), [("stop", 130, "half"), ("unknown", -6, "")]
)
def test_stopped_command_leaves_before_python_takes_itself_apart(ends, argument, code, printed):
    assert ends(AT_THE_END, argument)[:2] == (code, printed)


def test_stopped_command_lets_an_extension_module_start(ends):
    code, printed, messages = ends(WHILE_A_MODULE_STARTS, "stop")
    assert (code, printed) == (130, "whole"), messages
    assert messages == "distill-deploy: stopped; what is finished will not be made again\n"


def test_stopped_command_leaves_no_process_that_it_started(ends):
    """As Prefect's server, started by a thread that Python stops before it has said what to end."""
    code, printed, messages = ends(WITH_PROCESSES, "stop")
    assert code == 130, messages
    assert len(printed.split()) == 2
    assert not any(psutil.pid_exists(int(pid)) for pid in printed.split())


def test_stopped_command_ends_where_nobody_reads_what_it_prints(clean_environment):
    """As behind `2>&1 | tee log`, which Ctrl-C ends first, while a library's thread is still busy."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", WHILE_NOBODY_READS, "stop"]
    done = subprocess.run(command, env=clean_environment, stdout=writer, stderr=writer, check=False)
    os.close(writer)
    assert done.returncode == 130
