"""Ctrl-C prints one line, wherever it strikes: while a script imports, while it works, in the processes it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT, heed_ctrl_c

STRIKE = """
import os, signal, sys
class Strike:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["STRIKE_AT"]:
            sys.meta_path.remove(self)
            os.killpg(0, signal.SIGINT)  # as a terminal does, to all processes in the foreground
sys.meta_path.insert(0, Strike())
"""


def interrupted_at(module, script, *words):
    """What a script prints and returns if Ctrl-C is pressed when a process of it first imports a module."""
    Path("strike").mkdir()
    Path("strike/sitecustomize.py").write_text(STRIKE)
    return subprocess.run(
        [sys.executable, PROJECT / script, *words],
        capture_output=True,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
        env=os.environ | {"PYTHONPATH": "strike", "STRIKE_AT": module},
        timeout=120,
    )


@pytest.mark.parametrize(
    "script, words",
    [
        ("pretrain.py", ["cpu", "CONFIG"]),
        ("prune.py", ["cpu", "CONFIG"]),
        ("prune_dp.py", ["cpu", "CONFIG"]),
        ("mia.py", ["cpu", "CONFIG"]),
        ("study.py", ["STUDY", "--device", "cpu"]),
        ("report.py", ["results"]),
    ],
)
@pytest.mark.parametrize(
    "module", ["tqdm", "attackers", "numpy"]
)  # the console's, a script's own, a library's
def test_while_a_script_imports(script, words, module, write_config):
    words = [
        {"CONFIG": write_config(), "STUDY": str(PROJECT / "config/studies/digits.json")}.get(
            word, word
        )
        for word in words
    ]
    ran = interrupted_at(module, script, *words)
    assert (ran.stderr, ran.returncode) == ("interrupted\n", 130) and not Path("results").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["torch", "bench.training", "sklearn.model_selection", "filelock"]
)
def test_while_main_imports_and_works(module, write_config):
    ran = interrupted_at(module, "pretrain.py", "cpu", write_config(), "--workers", "2")
    assert (ran.stderr, ran.returncode) == ("interrupted\n", 130)
    assert not [*Path("results").rglob("*.part"), *Path("results").rglob("*.lock.json")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["base_model", "studies.runners", "bench.training"]
)  # in the server that forks the stages
def test_while_a_study_starts_its_processes(module):
    ran = interrupted_at(
        module, "study.py", str(PROJECT / "config/studies/digits.json"), "--device", "cpu"
    )
    assert (ran.stderr, ran.returncode) == ("interrupted\n", 130)


def test_an_error_that_a_library_makes_of_it_is_no_traceback(write_config):
    """Extension modules that are interrupted while they are imported raise ImportError or SystemError."""
    Path("strike").mkdir()
    Path("strike/sitecustomize.py").write_text(
        STRIKE.replace(
            "os.killpg(0, signal.SIGINT)",
            """
            try:
                os.killpg(0, signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError(name) from None""",
        )
    )
    ran = subprocess.run(
        [sys.executable, PROJECT / "pretrain.py", "cpu", write_config()],
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=120,
        preexec_fn=heed_ctrl_c,
        env=os.environ | {"PYTHONPATH": "strike", "STRIKE_AT": "torch"},
    )
    assert (ran.stderr, ran.returncode) == ("interrupted\n", 130)


def test_a_program_that_imports_the_bench_keeps_its_own_ctrl_c():
    code = (
        "import signal, sys; hook = sys.excepthook; import mia, study; "
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, sys.excepthook is hook)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        preexec_fn=heed_ctrl_c,
    )
    assert ran.stdout == "True True\n"
