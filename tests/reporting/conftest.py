"""Results of two seeds, and the report on them."""

import shutil
from pathlib import Path

import pytest
from helpers import config_writer
from report_helpers import run

import mia
import pretrain
import prune
import prune_dp
import report
from reporting import figures

ATTACKS = "threshold,gap,lira"


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Two seeds: original, pruned twice, ppb (adaptive too), dp from scratch; no sensitivities."""
    folder = tmp_path_factory.mktemp("study")
    config = config_writer(folder)(shadow_num=3, epochs=3)
    for seed in ("7", "8"):
        same = (
            config,
            "--seed",
            seed,
            "--results",
            str(folder / "results" / "tiny" / f"seed_{seed}"),
        )
        run(pretrain, *same)
        run(mia, *same, "--original", "--attacks", ATTACKS)
        for sparsity in ("0.5", "0.7"):
            run(prune, *same, "--prune_sparsity", sparsity)
            run(mia, *same, "--prune_sparsity", sparsity, "--attacks", ATTACKS)
        run(prune, *same, "--defend", "ppb")
        run(mia, *same, "--defend", "ppb", "--attacks", "threshold")
        run(mia, *same, "--defend", "ppb", "--adaptive", "--attacks", "threshold")
        run(prune_dp, *same, "--from_scratch")
        run(mia, *same, "--defend", "dp", "--from_scratch", "--attacks", "threshold")
    return folder / "results"


@pytest.fixture(scope="session")
def written(made, tmp_path_factory):
    """Where the report on these results lies, images and all."""
    out = tmp_path_factory.mktemp("out")
    assert report.main([str(made), "--out", str(out)]) == 0
    return out


@pytest.fixture
def results(made, tmp_path, monkeypatch):
    """A copy, to be changed; figures are drawn, but no image is made of them, which takes long."""
    monkeypatch.setattr(
        figures.Figure, "savefig", lambda figure, file, **how: file.write(b"no image")
    )
    return Path(shutil.copytree(made, tmp_path / "results"))


@pytest.fixture
def victim(results):
    return results / "tiny" / "seed_7" / "tiny_columnfc" / "l1unstructure_0.7_model"
