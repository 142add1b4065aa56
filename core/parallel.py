"""One task for many models, in several processes at once."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from core import console
from core.console import UserError

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

# What the forked processes run, and the queue by which they report: set before they are forked.
_task: Callable
_reports: SimpleQueue


class WorkerDied(UserError):
    """A process has ended before its task, as the kernel ends it where memory is short."""


def parallel_map(
    task: Callable,
    names: Iterable[str],
    *,
    workers: int,
    threads: int = 1,
    goes_on: tuple[type[Exception], ...] = (),
) -> Iterator[tuple[str, Any]]:
    """Yield (name, task(name, progress)) as each is done, in up to `workers` processes.

    The processes are forked: they share the records in memory, and need no time to start. With
    `workers` = 1 the tasks run in this process, one after the other. Results must not depend on
    which it is: a task draws its randomness from its own generators, and runs on `threads` threads.
    What does not survive a fork must not have been used before: a GPU, OpenMP on several threads
    and, where torch sees a GPU, a backward pass.

    Args:
        task: called with a name and `progress` (see `console.epoch_bar`); its result is pickled.
        goes_on: errors of a task that are yielded in place of its result, while the others go on.
            With `WorkerDied`, tasks that were at work when a process died are run again, one at a
            time.
    Raises:
        UserError: a task's own, or a process has died.
    """
    rounds = [list(names)]
    if workers == 1 or not rounds[0]:
        yield from _one_after_the_other(task, rounds[0], goes_on)
        return
    while rounds:
        together = rounds.pop(0)
        left, begun = dict.fromkeys(together), set[str]()
        results = _in_processes(task, together, begun, workers=workers, threads=threads)
        with closing(results):
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


def _one_after_the_other(
    task: Callable, names: list[str], goes_on: tuple[type[Exception], ...]
) -> Iterator[tuple[str, Any]]:
    """`parallel_map` without other processes."""
    for name in names:
        try:
            result = task(name, console.epoch_bar)
        except goes_on as error:
            result = error
        yield name, result


def _in_processes(
    task: Callable, names: list[str], begun: set[str], *, workers: int, threads: int
) -> Generator[tuple[str, Any], None, None]:
    """Yield (name, result or the error) as each is done; adds to `begun` whose task has begun.

    Raises BrokenProcessPool where a process has died.
    """
    global _task, _reports
    context = multiprocessing.get_context("fork")
    _task, _reports = task, context.SimpleQueue()
    pool = ProcessPoolExecutor(
        min(workers, len(names)), mp_context=context, initializer=_begin, initargs=(threads,)
    )
    bars: dict[str, tuple[Callable, Callable]] = {}
    try:
        with _interrupt_held_back():  # one while processes start would leave some unknown
            waiting = {pool.submit(_run, name): name for name in names}
        while waiting:
            done, _ = wait(waiting, timeout=0.05, return_when="FIRST_COMPLETED")
            _show(bars, begun)
            broken = {future: isinstance(future.exception(), BrokenProcessPool) for future in done}
            for future in sorted(done, key=broken.__getitem__):
                if broken[future]:
                    _show(bars, begun)
                error = future.exception()
                if error is None or broken[future]:
                    yield waiting.pop(future), future.result()  # raises that the pool is broken
                else:
                    yield waiting.pop(future), error
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
    """Have this process end with its parent, also where that is killed: nothing may go on holding
    locks."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _run(name: str):
    _reports.put((name, None, None, None))
    return _task(name, _report_epochs)


def _report_epochs(epochs: int, label: str):
    """A worker's `progress`: has the parent's bars follow its training."""

    def on_epoch(epoch, accuracy):
        _reports.put((label, epochs, epoch, accuracy))

    return on_epoch, lambda: _reports.put((label, epochs, None, None))


def _show(bars: dict, begun: set[str]) -> None:
    while not _reports.empty():
        label, epochs, epoch, accuracy = _reports.get()
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
    """Have glibc keep freed memory for what comes next. Handed back, the kernel would zero it page
    by page again: that took a sixth of SAMIA's time. Other C libraries are left as they are."""
    if hasattr(os, "fork") and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for trim_or_mmap_threshold in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(trim_or_mmap_threshold, 2**30)


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
