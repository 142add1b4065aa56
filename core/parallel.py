"""One task for many models, in several processes at once."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager

from core import console
from core.console import UserError

_task: Callable | None = None  # what the forked processes run, and whom they tell of an epoch
_told = None


class WorkerDied(UserError):
    """A process has ended before its task, as the kernel ends it where memory is short."""


def parallel_map(
    task: Callable,
    names: Iterable[str],
    *,
    workers: int,
    threads: int = 1,
    goes_on: tuple[type[Exception], ...] = (),
) -> Iterator[tuple[str, object]]:
    """Yield (name, task(name, progress)) as each is done, in up to `workers` processes.

    The processes are forked: they share the records in memory, and need no time to start. With `workers` = 1
    the tasks run here, one after the other. Results must not depend on which it is: a task draws its randomness from
    generators of its own, and runs on `threads` threads. What does not survive a fork must not have been used
    before: a GPU, OpenMP on several threads and, where torch sees a GPU, a backward pass. With several workers a
    stage leaves all of that to them.

    Args:
        task: called with a name and `progress` (see `console.epoch_bar`); what it returns is pickled.
        goes_on: errors of a task that are yielded in place of its result, while the others go on. With `WorkerDied`,
            tasks that were at work when a process died are run again, one at a time.
    Raises:
        UserError: a task's own, or a process has died.
    """
    names = list(names)
    if workers == 1 or not names:
        for name in names:
            try:
                result = task(name, console.epoch_bar)
            except goes_on as error:
                result = error
            yield name, result
        return

    rounds = [names]
    while rounds:
        together = rounds.pop(0)
        left, begun = dict.fromkeys(together), set()
        with closing(
            _in_processes(task, together, begun, workers=workers, threads=threads)
        ) as results:
            try:
                for name, result in results:
                    if isinstance(result, Exception) and not isinstance(result, goes_on):
                        raise result
                    del left[name]
                    yield name, result
                continue
            except BrokenProcessPool:
                died = WorkerDied("a worker process has died (out of memory?): try fewer --workers")
        if not issubclass(WorkerDied, goes_on):
            raise died
        if len(together) == 1:
            yield together[0], died
        else:  # which of those at work it was is not known
            alone = [name for name in left if name in begun or not begun]
            others = [name for name in left if name not in alone]
            rounds += [[name] for name in alone] + [others] * bool(others)


def _in_processes(
    task: Callable, names: list[str], begun: set[str], *, workers: int, threads: int
) -> Iterator[tuple[str, object]]:
    """Yield (name, result or the error) as each is done; adds to `begun` whose task has begun.

    Raises BrokenProcessPool where a process has died.
    """
    global _task, _told
    context = multiprocessing.get_context("fork")
    _task, _told = task, context.SimpleQueue()
    pool = ProcessPoolExecutor(
        min(workers, len(names)), mp_context=context, initializer=_begin, initargs=(threads,)
    )
    bars = {}
    try:
        with (
            _interrupt_held_back()
        ):  # one that strikes while processes start would leave some unknown
            waiting = {pool.submit(_run, name): name for name in names}
        while waiting:
            done, _ = wait(waiting, timeout=0.05, return_when="FIRST_COMPLETED")
            _show(bars, begun)
            errors = {future: future.exception() for future in done}
            for future in sorted(
                done, key=lambda future: isinstance(errors[future], BrokenProcessPool)
            ):
                if isinstance(errors[future], BrokenProcessPool):
                    _show(bars, begun)
                    raise errors[future]
                yield (
                    waiting.pop(future),
                    future.result() if errors[future] is None else errors[future],
                )
    finally:  # also when the caller gives up or Ctrl-C strikes: nothing runs on
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(cancel_futures=True)
        for _, close in bars.values():
            close()


@contextmanager
def _interrupt_held_back():
    struck = []
    handler = signal.signal(signal.SIGINT, lambda *_: struck.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if struck:
        raise KeyboardInterrupt


def _begin(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends all
    die_with_parent()


def die_with_parent() -> None:
    """Have this process end with its parent, also where that is killed: nothing may go on holding locks."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _run(name: str):
    _told.put((name, None, None, None))
    return _task(name, _tell)


def _tell(epochs: int, label: str):
    """A worker's `progress`: passes on what happens to the parent's bars."""

    def on_epoch(epoch, accuracy):
        _told.put((label, epochs, epoch, accuracy))

    return on_epoch, lambda: _told.put((label, epochs, None, None))


def _show(bars: dict, begun: set[str]) -> None:
    while not _told.empty():
        label, epochs, epoch, accuracy = _told.get()
        if epochs is None:
            begun.add(label)
            continue
        if label not in bars:
            bars[label] = console.epoch_bar(epochs, label)
        on_epoch, close = bars[label]
        if epoch is None:
            close()
        else:
            on_epoch(epoch, accuracy)


def tune_malloc() -> None:
    """Have glibc keep freed memory for what comes next. Handed back, the kernel would zero it page by page again:
    that took a sixth of SAMIA's time. Other C libraries are left as they are."""
    if hasattr(os, "fork") and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for trim_or_mmap_threshold in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(trim_or_mmap_threshold, 2**30)


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
