"""What tests of several rooms use: a tiny data set with configs, stages as run, what they made."""

import contextlib
import hashlib
import json
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import torch

from attackers import ATTACKS, VERDICTS, Evidence, part_of_all
from base_model import Batch
from datasets import DATASETS, load

PROJECT = Path(__file__).resolve().parent.parent
SHARED_DATA = PROJECT.parent / "shared" / "data"
# what `--attacks all` reports where no other release is held
ALL = {
    verdict
    for verdict, name in VERDICTS.items()
    if part_of_all(name) and "releases" not in ATTACKS[name].options
}
MADE = Path("results/tiny_columnfc")


def table_arrays(n=240, columns=12, num_cls=3, seed=0):
    """Clusters that overlap, with a few wrong labels: learnable, and worth memorising."""
    draw = np.random.default_rng(seed)
    y = draw.integers(num_cls, size=n)
    x = draw.normal(size=(num_cls, columns))[y] + draw.normal(size=(n, columns))
    wrong = draw.random(n) < 0.2
    y[wrong] = draw.integers(num_cls, size=wrong.sum())
    return x.astype(np.float32), y


def load_named(name, root):
    """A named data set whose files lie in `root`."""
    facts = DATASETS[name].options
    return load(name, data_root=root, num_cls=facts["num_cls"], input_dim=facts["shape"][0])


def write_images(folder):
    """The path of an archive of 60 images of 8 x 8 pixels in three classes."""
    x, y = table_arrays(n=60, columns=64)
    images = (128 + 20 * x.clip(-6, 6)).astype(np.uint8).reshape(60, 8, 8, 1)
    np.savez(folder / "images.npz", x=images, y=y)
    return str(folder / "images.npz")


def config_writer(folder):
    x, y = table_arrays()
    np.savez(folder / "tiny.npz", x=x, y=y)

    def write(name="tiny.json", **changes):
        config = {
            "dataset_name": "tiny",
            "data_path": str(folder / "tiny.npz"),
            "model_name": "columnfc",
            "num_cls": 3,
            "input_dim": 12,
            "epochs": 4,
            "shadow_num": 2,
            "early_stop": 0,
            "workers": 1,
        } | changes
        path = folder / name
        path.write_text(
            json.dumps({key: value for key, value in config.items() if value is not None})
        )
        return str(path)

    return write


def files():
    """What was made: manifests without when and where, no locks, no lists of digests."""
    return {
        str(path): hashlib.sha256(content(path)).hexdigest()
        for path in sorted(Path("results").rglob("*"))
        if path.is_file() and path.suffix not in (".lock", ".sha256")
    }


def content(path):
    try:
        manifest = json.loads(path.read_text())
    except ValueError:  # no manifest, or a damaged one
        return path.read_bytes()
    return json.dumps(
        {name: value for name, value in manifest.items() if name not in ("made", "sha256")}
    ).encode()


def manifest(folder):
    return json.loads((MADE / folder / "manifest.json").read_text())


def lines(folder):
    return [json.loads(line) for line in (MADE / folder / "attacks.jsonl").read_text().splitlines()]


def run(stage, *words):
    assert stage.main(["cpu", *words]) == 0


@dataclass(frozen=True)
class MadeOnce:
    """What stages made of a config, for several tests to begin with."""

    config: str
    results: Path

    def copy_here(self) -> str:
        """Lay it out in this folder; returns the path of the config."""
        shutil.copytree(self.results, "results")
        return self.config


def make_once(folder, *stages, **changes) -> MadeOnce:
    """Run stages, each a tuple (module, *words), in a folder with a config of the tiny table."""
    path = config_writer(folder)(**changes)
    with contextlib.chdir(folder):
        for stage, *words in stages:
            run(stage, path, *words)
    return MadeOnce(path, folder / "results")


def fixed_evidence(online, shadows=8, n=240, num_cls=4):
    """Eight shadow models on drawn records; members are easier by 2 in the logit of their class."""
    draw = np.random.default_rng(20)
    target = np.arange(n) < n // 2
    calibration_mask = np.tile(target == online, (shadows, 1))
    member = (draw.random((shadows, n)) < 0.5) & calibration_mask
    truth = (draw.random(n) < 0.5) & target
    labels, ease = draw.integers(num_cls, size=n), draw.normal(1, 2, n)

    def posteriors(member):
        z = draw.normal(size=(n, num_cls))
        z[np.arange(n), labels] += ease + 2 * member
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    return Evidence.from_posteriors(
        labels,
        victim=posteriors(truth),
        shadows=np.stack([posteriors(one) for one in member]),
        member=member,
        target=target,
        calibration_mask=calibration_mask,
    )


def result_digests(results="results"):
    """Digests of all results by file; measures themselves, without where and how they were made."""
    files = {}
    for path in sorted(Path(results).rglob("*")):
        name = str(path.relative_to(results))
        if path.suffix == ".pth" or path.name in ("split.npz", "scores.npz"):
            files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name == "attacks.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            files[name] = [
                {
                    key: value
                    for key, value in line.items()
                    if key not in ("results", "sha256", "data_root", "attacks", "lines")
                }
                for line in lines
            ]
    return files


def is_held(lock):
    """Whether a process holds this lock, and so runs on."""
    try:
        with filelock.FileLock(lock, timeout=0):
            return False
    except filelock.Timeout:
        return True


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def a_batch(x, y, epoch=0):
    """A step's records, numbered from 0."""
    return Batch(x, y, torch.arange(len(y)), epoch)


def heed_ctrl_c():
    """Also where the tests run in the background of a shell, which has its jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
