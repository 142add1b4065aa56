"""Whatever is wrong in a config, data or a command line: one line says so, nothing is written."""

import io
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from fuzz_base import CONFIG, DATA, MADE, STAGES, Case, X, Y, cases, config, flipped, npy, zipped
from fuzz_data import bad_archives, bad_arrays
from fuzz_options import WRONG, bad_words, misfits, wrong_texts, wrong_values
from helpers import PROJECT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.options import OPTIONS

KINDS = {
    "values": cases(wrong_values),
    "texts": cases(wrong_texts),
    "words": cases(bad_words),  # before data are read
    "misfits": cases(misfits),
    "arrays": cases(bad_arrays),
    "archives": cases(bad_archives),
}

QUIET = (
    DeprecationWarning,
    PendingDeprecationWarning,
    ImportWarning,
    ResourceWarning,
)  # Python doesn't show these


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to run in; beside it what is `given`, and in `made` the models that the
    valid config makes."""
    for folder in ("here", "given"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for stage in STAGES:
        assert run(Case(stage, config(stage, results=MADE)))[:2] == (0, "")


def fuzz(examples, strategy):
    def with_settings(test):
        return settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )(given(strategy)(test))

    return with_settings


def lying() -> dict:
    """All that lies here and around, and when the files were written."""
    return {
        path: path.is_file() and (path.stat().st_mtime_ns, path.stat().st_size)
        for path in Path("..").rglob("*")
    }


def lay_out(case: Case):
    Path(CONFIG).write_bytes(case.config)
    Path(DATA).write_bytes(case.data)


def run(case: Case) -> tuple[int, str, bool]:
    """Status, stderr, and whether anything was written."""
    lay_out(case)
    before, error = lying(), io.StringIO()
    with (
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(io.StringIO()),
        redirect_stderr(error),
    ):
        warnings.simplefilter("always")
        status = STAGES[case.stage].main(list(case.argv))
    assert not [
        one for one in warned if not issubclass(one.category, QUIET)
    ]  # it would be a line more
    return status, error.getvalue(), lying() != before


def is_one_line(error: str) -> bool:
    return error.startswith("error: ") and error.endswith("\n") and len(error.splitlines()) == 1


def test_every_option_that_is_read_is_fuzzed():
    assert set(WRONG) == set(OPTIONS) - {"image_size", "hidden_size"}


@pytest.mark.slow
def test_bad_input_gets_one_line_status_2_and_nothing_written(place):
    tried: dict[Case, str] = {}

    for kind, strategy in KINDS.items():

        @fuzz(250, strategy)
        def refuse(case):
            tried[case] = kind
            status, error, written = run(case)
            assert status == 2 and is_one_line(error) and not written, error

        refuse()
    count = Counter(tried.values())  # of inputs that differ
    assert count.total() >= 500 and min(count.values()) >= 40, count


@pytest.mark.slow
def test_bad_input_in_a_process_of_its_own(place):
    tried = set()

    def refuse(case):
        tried.add(case)
        lay_out(case)
        before = lying()
        result = subprocess.run(
            [sys.executable, PROJECT / f"{case.stage}.py", *case.argv],
            capture_output=True,
            timeout=60,
        )
        error = result.stderr.decode()
        assert result.returncode == 2 and is_one_line(error) and lying() == before, error

    early = st.one_of(
        KINDS["values"], KINDS["texts"], KINDS["words"]
    )  # most end before torch is imported: it is slow
    fuzz(30, early.filter(lambda case: not any("\0" in word for word in case.argv)))(refuse)()
    fuzz(2, KINDS["arrays"] | KINDS["archives"])(refuse)()
    assert len(tried) >= 20, len(tried)


def flips(within):
    return st.lists(
        st.tuples(st.integers(0, within - 1), st.integers(0, 7)), min_size=1, max_size=3
    )


AN_NPZ = st.sampled_from(
    [
        zipped({"x.npy": npy(X), "y.npy": npy(Y)}, method)
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]
)

PERHAPS = (
    st.one_of(
        st.builds(flipped, AN_NPZ, flips(10_000)),
        st.builds(
            flipped, AN_NPZ, st.tuples(st.tuples(st.integers(-250, -1), st.integers(0, 7)))
        ),  # the zip's directory
        flips(128).map(
            lambda bits: zipped(
                {"x.npy": flipped(npy(X)[:128], bits) + npy(X)[128:], "y.npy": npy(Y)}
            )
        ),
        flips(128).map(
            lambda bits: zipped(
                {"x.npy": npy(X), "y.npy": flipped(npy(Y)[:128], bits) + npy(Y)[128:]}
            )
        ),
    ).map(lambda data: {"data": data})
    | st.fixed_dictionaries(
        {},
        optional={  # in range, and of no use
            "lr": st.floats(min_value=0, exclude_min=True, allow_infinity=False),
            "weight_decay": st.floats(min_value=0, allow_infinity=False),
            "batch_size": st.integers(2, 2**31 - 1),
            "seed": st.integers(0, 2**31 - 1),
            "train_seed": st.integers(0, 2**31 - 1),
            "optimizer": st.sampled_from(["adam", "sgd"]),
            "num_cls": st.integers(3, 1000),
        },
    ).map(lambda changes: {"config": config("pretrain", **changes)})
)


@pytest.mark.slow
def test_input_that_may_be_harmless_gets_that_line_or_a_model(place):
    statuses = Counter()

    @fuzz(250, PERHAPS)
    def take_or_refuse(fields):
        status, error, written = run(
            Case(**{"stage": "pretrain", "config": config("pretrain")} | fields)
        )
        statuses[status] += 1
        shutil.rmtree("results", ignore_errors=True)
        assert (
            (status, error, written) == (0, "", True)
            or status == 2
            and is_one_line(error)
            and (not written or "no longer finite" in error)
        ), error  # a training that fails has stored the split before

    take_or_refuse()
    assert min(statuses[0], statuses[2]) >= 20, statuses
