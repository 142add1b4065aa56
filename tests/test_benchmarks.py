"""The benchmark runs, and says what it measured. Nothing here asserts on time."""

import json
import subprocess
import sys

import pytest
from helpers import PROJECT


@pytest.mark.slow
def test_the_benchmark_writes_a_line_and_tables(tmp_path):
    out = tmp_path / "new" / "speed.jsonl"
    command = [
        sys.executable,
        PROJECT / "benchmarks/speed.py",
        "cpu",
        "--quick",
        "--parts",
        "training,threshold,private,samia",
    ]
    for _ in range(2):  # the second run adds its line to the first's
        ran = subprocess.run([*command, "--out", out], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert (
        len(lines) == 2
        and {"date", "cpu", "cores", "gpu", "torch", "training", "threshold"} <= lines[0].keys()
    )
    (row,) = lines[0]["training"]
    assert row["network"] == "columnfc" and row["records"] == 512
    assert all(row[name] > 0 for name in ("train", "train_plain", "queries", "queries_plain"))
    assert [row["records"] for row in lines[0]["threshold"]] == [100, 1000]
    assert "training: records a second" in ran.stdout and "threshold search: seconds" in ran.stdout
    (row,) = lines[0]["private"]
    assert all(
        row[way] > 0
        for way in ("seconds", "one_by_one", "torch_func", "opacus", "secret_noise", "seeded_noise")
    )
    (sliced,) = lines[0]["samia"]
    assert sliced["classes"] == 3 and sliced["slices"] > 0 and sliced["whole"] > 0
    assert row["kept_weights"] == (446 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10) * 3 // 10


def test_an_unknown_part_is_refused(tmp_path):
    ran = subprocess.run(
        [sys.executable, PROJECT / "benchmarks/speed.py", "cpu", "--parts", "speed"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2 and "unknown part 'speed': choose from training" in ran.stderr
