"""What Ctrl-C does to a script of this bench, from its first import to the end of its process.

While a stage's `main` runs it raises KeyboardInterrupt, so that half written files and other
processes are put away. Before and after that nothing has to be put away, and the process ends at
once. In either case one line is printed. Nothing is changed for a program that only imports these
modules.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager

STATUS = 130  # as a shell reports a process that SIGINT has ended
_state = {"struck": False, "printed": False}


def say_interrupted() -> None:
    """Print the line."""
    _state["printed"] = True
    print("interrupted", file=sys.stderr)


def struck() -> bool:
    """Whether Ctrl-C has been pressed while `main` ran. Libraries turn KeyboardInterrupt into
    errors of their own, as extension modules do that are being imported."""
    return _state["struck"]


def _leave(*_) -> None:
    if not _state["printed"]:
        os.write(2, b"interrupted\n")  # print may be at work already, or its stream closed
    os._exit(STATUS)


def _raise(*_) -> None:
    _state["struck"] = True
    raise KeyboardInterrupt


@contextmanager
def raised():
    """Ctrl-C raises KeyboardInterrupt while this is open, and ends the process at once behind
    it."""
    if signal.getsignal(signal.SIGINT) is not _leave:
        yield
        return
    try:
        signal.signal(signal.SIGINT, _raise)
        yield
    finally:
        signal.signal(signal.SIGINT, _leave)


@contextmanager
def blocked():
    """Processes that are started while this is open never see Ctrl-C: who started them ends
    them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    # first: where multiprocessing starts it, SIGINT is let through again
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _silent_when_struck(hook):
    return lambda *error: None if _state["struck"] else hook(*error)


def _in_a_script() -> bool:
    """Whether the process was started to run a script of this repository, and nobody else has
    changed Ctrl-C."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    return (
        file is not None
        and os.path.dirname(os.path.realpath(file)) == root
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


if _in_a_script():
    signal.signal(signal.SIGINT, _leave)
    sys.excepthook, sys.unraisablehook = map(
        _silent_when_struck, (sys.excepthook, sys.unraisablehook)
    )
