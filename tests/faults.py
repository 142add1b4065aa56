"""What interrupts and damages runs: stages are killed, files are cut, flipped or replaced."""

import contextlib
import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from helpers import MADE, PROJECT, files

import mia
import pretrain
import prune

STAGES = {"pretrain": pretrain, "prune": prune, "mia": mia}
WORDS = {"pretrain": [], "prune": ["--defend", "adv"], "mia": ["--defend", "adv", "--adaptive"]}
ATTACKS = "nn,threshold"
OUTPUT, ERRORS = Path("stage.out"), Path("stage.err")  # what a forked stage prints
READ_BY = {  # file -> the stages that read it
    "split.npz": ("pretrain", "prune", "mia"),
    "victim_model/manifest.json": ("pretrain", "prune", "mia"),
    "shadow_model_1/manifest.json": ("prune", "mia"),
    "victim_model/best.pth": ("pretrain", "prune"),
    "shadow_model_0/best.pth": ("prune",),
    "l1unstructure_0.7_adv_1_model/best.pth": ("prune",),
    "l1unstructure_0.7_adv_1_model/best_mask.pth": ("prune",),
    "l1unstructure_0.7_adv_1_model/manifest.json": ("prune", "mia"),
    "shadow_l1unstructure_0.7_adv_1_model_1/best.pth": ("prune",),
    "l1unstructure_0.7_adv_1_model/scores.npz": ("mia",),
    "l1unstructure_0.7_adv_1_model/attacks.jsonl": ("mia",),
}


# ---- killed --------------------------------------------------------------------------------------


def start_command(stage: str, path: str, *words: str, **how) -> subprocess.Popen:
    """A stage as a user starts it."""
    return subprocess.Popen(
        [sys.executable, PROJECT / f"{stage}.py", "cpu", path, *WORDS[stage], *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def start_fork(stage: str, *words: str, first=lambda: None) -> multiprocessing.Process:
    """A stage in a fork of this process, which spares it the seconds of importing torch; `first` is
    called there before."""
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_run_in_fork, args=(stage, words, first))
    process.start()
    return process


def _run_in_fork(stage, words, first):
    first()
    with (
        OUTPUT.open("w") as out,
        ERRORS.open("w") as errors,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        sys.exit(STAGES[stage].main(["cpu", *words]))


def resume_states() -> dict[Path, int]:
    """When each state of an unfinished training was written."""
    return {path: path.stat().st_mtime_ns for path in Path("results").rglob("*.resume")}


def kill_while_it_trains(stage: str, path: str, draw: random.Random) -> None:
    """SIGKILL as soon as a training has saved its state anew, and a little later."""
    before, process = resume_states(), start_fork(stage, path, *WORDS[stage])
    while process.is_alive() and resume_states().items() <= before.items():
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.03))
    assert process.is_alive(), f"it had ended: {ERRORS.read_text()}"
    process.kill()
    process.join()


def run_all_stages(path: str, draw: random.Random, *, kills: int) -> dict[str, str]:
    """Run all stages, each killed so many times before it may end; digests of what they made."""
    for stage in STAGES:
        for _ in range(kills):
            kill_while_it_trains(stage, path, draw)
        process = start_fork(stage, path, *WORDS[stage], "--save_every", "1000")
        process.join()
        assert process.exitcode == 0, ERRORS.read_text()
    assert not resume_states()
    return files()


def killed_at_file(step: int, stage: str, words: list[str]) -> bool:
    """Whether a stage was killed just before it put its `step`-th file in place; False where it
    ended before."""
    pid = os.fork()
    if pid == 0:
        real, done = os.replace, []

        def replace(*names):
            done.append(names)
            if len(done) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*names)

        os.replace = replace
        with contextlib.redirect_stdout(io.StringIO()):
            os._exit(STAGES[stage].main(["cpu", *words]))
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def interrupt_after(count: int, real):
    """`real`, which raises KeyboardInterrupt when called more than `count` times."""
    calls = iter(range(count))

    def call(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return real(*args)

    return call


# ---- damaged -------------------------------------------------------------------------------------


def outcome(stage: str, path: str) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a stage run in this process."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as error,
    ):
        status = STAGES[stage].main(["cpu", path, *WORDS[stage]])
    return status, out.getvalue(), error.getvalue()


def printed_table(out: str) -> str:
    """The table of results in what a stage printed."""
    return out.split("attack accuracy" if "attack accuracy" in out else "kept epoch")[-1]


def flipped(content: bytes, draw: random.Random) -> bytes:
    """With one bit the other way."""
    content = bytearray(content)
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def damaged_copies(whole: bytes, draw: random.Random, attempts: int) -> list[bytes]:
    """Every third copy is cut, the others have a bit flipped."""
    return [
        flipped(whole, draw) if attempt % 3 else whole[: draw.randrange(len(whole))]
        for attempt in range(attempts)
    ]


def damage(file: str, path: str, draw: random.Random, attempts: int) -> int:
    """Damage `file` at random, so many times: each run says what is wrong, or all that it says is
    right. Returns how often the damage was noticed."""
    whole = (MADE / file).read_bytes()
    right = {stage: printed_table(outcome(stage, path)[1]) for stage in READ_BY[file]}
    noticed = 0
    for damaged in damaged_copies(whole, draw, attempts):
        for stage in READ_BY[file]:
            (MADE / file).write_bytes(damaged)
            before = files()
            status, out, error = outcome(stage, path)
            after = files()
            if status == 0:
                assert printed_table(out) == right[stage], (file, stage)
                changed = {name for name in after if after[name] != before[name]}
                assert changed <= {f"{MADE}/{file}"}
            else:
                noticed += 1
                assert status == 2 and error.count("\n") == 1 and Path(file).name in error, error
                assert after == before, (file, stage)
    (MADE / file).write_bytes(whole)
    return noticed


# ---- replaced ------------------------------------------------------------------------------------

FOREIGN = b"weights of another program"


class Planted:
    """Unpickled, it would write a file."""

    def __reduce__(self):
        return open, ("planted", "w")


def torch_saved(content) -> bytes:
    torch.save(content, "saved.pth")
    return Path("saved.pth").read_bytes()


def result_bytes() -> dict[str, bytes]:
    """All files below results/, locks too."""
    return {
        str(path): path.read_bytes()
        for path in sorted(Path("results").rglob("*"))
        if path.is_file()
    }
