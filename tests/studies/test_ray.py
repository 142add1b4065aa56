"""Studies on a Ray cluster of two nodes on this machine, and what is sent to its nodes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT, config_writer, result_digests, wait_for

from studies.runners import STAGES, copy_code


@pytest.mark.slow
def test_nodes_are_sent_the_code_and_nothing_else(tmp_path):
    """In a folder without git, beside large and private files; stages run in the copy."""
    project, copy = tmp_path / "project", tmp_path / "copy"
    copy_code(PROJECT, project)
    for name in (
        "checkpoints.bin",
        "venv/lib/x.py",
        "wandb/run/y.py",
        "models/weights.pth",
        "results/z.json",
        ".env",
        "data/a.npz",
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(b"large")
    copy_code(project, copy)
    names = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert {
        "pretrain.py",
        "mia.py",
        "bench/__init__.py",
        "core/files.py",
        "attackers/lira.py",
        "models/column.py",
    } <= names
    assert all(name.endswith(".py") for name in names) and not any(
        name.startswith(("venv", "wandb", "tests", "benchmarks")) for name in names
    )
    assert sum(path.stat().st_size for path in copy.rglob("*.py")) < 2**21
    for stage in STAGES:
        ran = subprocess.run(
            [sys.executable, f"{stage}.py", "--help"], cwd=copy, capture_output=True
        )
        assert ran.returncode == 0, ran.stderr
    config = config_writer(tmp_path)(epochs=1, shadow_num=1)
    for words in (
        ["pretrain.py", "cpu", config],
        ["mia.py", "cpu", config, "--original", "--attacks", "gap,nn"],
    ):
        ran = subprocess.run(
            [sys.executable, *words, "--results", tmp_path / "made"], cwd=copy, capture_output=True
        )
        assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes on this machine, of one CPU each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A study, and what processes of this machine find in it."""
    folder = tmp_path_factory.mktemp("local")
    config = config_writer(folder)(epochs=20, save_every=0, shadow_num=1)
    path = folder / "grid.json"
    path.write_text(
        json.dumps(
            {
                "config": config,
                "attacks": ["threshold", "loss"],
                "grids": [
                    {"seed": [1, 2, 3]},
                    {"seed": 1, "quantizer": ["int8", "cluster4"], "pruned": True},
                ],
            }
        )
    )
    words = [
        sys.executable,
        PROJECT / "study.py",
        path,
        "--device",
        "cpu",
        "--results",
        folder / "results",
    ]
    assert subprocess.run(words, stdout=subprocess.DEVNULL).returncode == 0
    return path, result_digests(folder / "results")


def at_work(raylet):
    """Whether a stage runs below this process."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True
    ).stdout
    processes = [line.split(maxsplit=2) for line in listed.splitlines()]
    below = {str(raylet)}
    while more := {pid for pid, parent, _ in processes if parent in below} - below:
        below |= more
    return any(
        stage in args
        for pid, _, args in processes
        if pid in below
        for stage in ("-m pretrain", "-m prune", "-m mia")
    )


@pytest.mark.cluster
@pytest.mark.xdist_group("cluster")
@pytest.mark.parametrize("ship", [False, True], ids=["shared folder", "object store"])
def test_a_node_that_dies_changes_no_result(cluster, local, ship):
    path, whole = local
    node = cluster.add_node(num_cpus=1)
    words = ["--ray", cluster.address] + ["--ship"] * ship
    process = subprocess.Popen(
        [
            sys.executable,
            PROJECT / "study.py",
            path,
            "--device",
            "cpu",
            "--results",
            "on_ray",
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    raylet = node.all_processes["raylet"][0].process.pid
    wait_for(
        lambda: (
            process.poll() is not None
            or list(Path("on_ray").rglob("manifest.json"))
            and at_work(raylet)
        )
    )
    cluster.remove_node(node, allow_graceful=False)  # with what runs on it
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "[5/5]" in said, said
    assert "Task _run_there failed" in said  # Ray says so of what ran on the node
    assert result_digests("on_ray") == whole and len(whole) > 20
    assert not list(Path("on_ray").rglob("*.resume")) and not list(Path("on_ray").glob(".shared*"))


@pytest.mark.cluster
@pytest.mark.xdist_group("cluster")
def test_a_folder_that_is_not_shared_is_said(cluster, local):
    """The nodes of this machine see every folder; so the file that proves it is not written."""
    code = f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
import study
from studies import runners
real = runners.write
runners.write = lambda path, content: path.name.startswith(".shared") or real(path, content)
study.main(sys.argv[1:])
"""
    words = [str(local[0]), "--device", "cpu", "--results", "on_ray", "--ray", cluster.address]
    command = [sys.executable, "-c", code, *words]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ran.returncode == 1 and "5 of 5 cells failed" in ran.stdout
    assert "is not the same folder on node" in ran.stdout and not list(
        Path("on_ray").rglob("*.pth")
    )
