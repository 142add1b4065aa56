"""A study at work: its stages are run as those before them end, and failures reported."""

from __future__ import annotations

import json
import sys
import time

from core import console
from bench.command_line import as_config
from core.files import write
from studies.plan import Job, cells_of


def counted(number: int, noun: str) -> str:
    """Such as "1 cell", "2 cells"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def run(jobs: list[Job], runner) -> None:
    """Run all jobs on `runner` (see `runners`), as many at once as it takes; a failed one stops
    those that need it."""
    cells = cells_of(jobs)
    bar = console.progress(total=len(cells), label="cells", unit="cell")
    try:
        while any(job.state in ("waiting", "running") for job in jobs):
            _fail_with_what_they_need(jobs)
            ready = [
                job
                for job in jobs
                if job.state == "waiting"
                and all(need.state == "done" for need in job.needs)
                and all(before.state in ("done", "failed") for before in job.after)
            ]
            for job in ready[: max(0, runner.capacity - len(runner.running))]:
                write(job.config, json.dumps(as_config(job.options), indent=1).encode())
                job.state, job.began = "running", time.monotonic()
                runner.start(job)
            for job, status in runner.finished(timeout=0.5) if runner.running else ():
                job.seconds = time.monotonic() - job.began
                job.state = "done" if status == 0 else "failed"
                if status:
                    job.error = _error(job, status)
                done = sum(cell.state == "done" for cell in cells)
                console.say(
                    f"[{done}/{len(cells)}] {job.seconds:6.1f} s  {job.label}"
                    + (f": FAILED: {job.error}" if status else "")
                )
                bar.update(done - bar.n)
            bar.set_postfix_str(_overview(jobs, runner), refresh=True)
    finally:
        bar.close()


def _fail_with_what_they_need(jobs: list[Job]) -> None:
    for job in jobs:  # a need stands before what needs it
        lost = [need for need in job.needs if need.state == "failed"]
        if job.state == "waiting" and lost:
            job.state, job.error = "failed", f"not run, as this failed: {lost[0].label}"


def _overview(jobs: list[Job], runner) -> str:
    failed = sum(cell.state == "failed" for cell in cells_of(jobs))
    at_work = sum(
        any(job.state == "running" for job in [cell, *cell.needs]) for cell in cells_of(jobs)
    )
    left = time_left(jobs, len(runner.running))
    return f"{at_work} running, {failed} failed" + (
        "" if left is None else f", about {console.duration(left)} left"
    )


def time_left(jobs: list[Job], at_once: int) -> float | None:
    """Seconds, by what jobs like each, else of its stage, else all took; None before any has
    ended."""
    took: dict = {}
    for job in jobs:
        if job.state == "done":
            for key in (job.duration_key, job.stage, None):
                took.setdefault(key, []).append(job.seconds)
    if not took:
        return None
    now, left = time.monotonic(), 0.0
    for job in jobs:
        if job.state in ("waiting", "running"):
            known = next(key for key in (job.duration_key, job.stage, None) if key in took)
            gone = now - job.began if job.state == "running" else 0.0
            left += max(0.0, sum(took[known]) / len(took[known]) - gone)
    return left / max(1, at_once)


def _error(job: Job, status: int) -> str:
    lines = (
        job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if job.log.exists()
        else []
    )
    said = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    if said and status > 0:
        return "; ".join(line.removeprefix("error: ") for line in said)
    return f"ended with status {status} (out of memory?)"


def report_failures(jobs: list[Job]) -> None:
    """Name what failed, and exit with status 1; nothing where nothing has."""
    failed = [job for job in jobs if job.state == "failed"]
    if not failed:
        return
    causes = [job for job in failed if not any(need.state == "failed" for need in job.needs)]
    console.say(
        f"\n{len(cells_of(failed))} of {len(cells_of(jobs))} cells failed; given again, the study tries "
        f"these again:"
    )
    for job in causes:
        lost = sum(job in cell.needs for cell in cells_of(failed))
        more = f" (and {counted(lost, 'cell')} behind it)" if lost else ""
        console.say(f"  {job.label}{more}\n    {job.error}\n    log: {job.log}")
    sys.exit(1)
