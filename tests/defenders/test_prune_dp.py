"""prune_dp.py: what it trains, stores, resumes and refuses."""

import itertools
import json
import math
import os

import pytest
import torch
from dp_cases import ENGINES, started
from helpers import MADE, files, lines, manifest, run
from scipy.stats import kstest

import mia
import pretrain
import prune
import prune_dp
from base_model import BaseModel, TrainConfig, TrainSet
from core.devices import generator
from core.files import read_digested, sealed_json
from datasets import load
from defenders.accounting import NO_GUARANTEE, guarantee
from defenders.dp import PrivateSGD
from defenders.noise import SeededStream
from models import build

ADAPTIVE_ON_SCRATCH = [
    "--defend",
    "dp",
    "--defend_arg",
    "1",
    "--from_scratch",
    "--adaptive",
    "--attacks",
    "threshold",
]


def stopped_at(call):
    """In place of `BaseModel.accuracies`: Ctrl-C at this call of it."""
    ran, real = [], BaseModel.accuracies

    def interrupted(self, *args):
        ran.append(1)
        if len(ran) == call:
            raise KeyboardInterrupt
        return real(self, *args)

    return interrupted


class TestStage:
    @pytest.fixture
    def path(self, write_config):
        path = write_config(epochs=4)
        run(pretrain, path)
        return path

    @pytest.mark.parametrize("engine", ENGINES)
    def test_it_prunes_fine_tunes_and_says_what_is_guaranteed(self, path, capsys, engine):
        run(prune, path)
        run(prune_dp, path, "--defend", "dp", "--defend_arg", "2.0", "--dp_engine", engine)
        said = " ".join(capsys.readouterr().out.split())
        privacy = manifest("l1unstructure_0.7_dp_2_model")["privacy"]
        n, size = 54, 54
        assert privacy["steps"] == 2 * math.ceil(n / 128) and privacy["sampling_rate"] == size / n
        given = guarantee(n=n, batch_size=size, noise_multiplier=2.0, epochs=2, delta=None)
        assert (
            privacy == vars(given) | {"epsilon": given.epsilon, "noise": "secret"}
            and privacy["n"] == n
        )
        assert (
            manifest("l1unstructure_0.7_dp_2_model")["options"]["dp_noise"] == "secret"
            and NO_GUARANTEE not in said
        )
        shown = float(said.split("fine-tuning is (")[1].split(",")[0])
        assert given.epsilon <= shown < given.epsilon + 0.01
        assert (
            "the victim's fine-tuning is (" in said
            and "NO such guarantee" in said
            and "dev records" in said
        )
        weights = torch.load(MADE / "l1unstructure_0.7_dp_2_model/best.pth", weights_only=True)
        masks = torch.load(MADE / "l1unstructure_0.7_dp_2_model/best_mask.pth", weights_only=True)
        for name, kept in masks.items():
            assert weights[name][~kept].eq(0).all()
        for words in ([], ["--adaptive"]):
            run(mia, path, "--defend", "dp", "--defend_arg", "2", "--attacks", "threshold", *words)
        assert {line["adaptive"] for line in lines("l1unstructure_0.7_dp_2_model")} == {True, False}

    def test_from_scratch_sees_no_pretrained_weight(self, path, capsys):
        words = [
            "--defend_arg",
            "1",
            "--from_scratch",
            "--prune_epochs",
            "3",
            "--dp_noise",
            "seeded",
        ]
        run(prune_dp, path, *words)
        said = " ".join(capsys.readouterr().out.split())
        assert (
            "the victim would be (" in said
            and "this would hold for the network" in said
            and "NO such" not in said
        )
        folder = "l1unstructure_0.7_dp_1_scratch_model"
        assert manifest(folder)["parent"] == ""
        before = (MADE / folder / "best.pth").read_bytes()
        run(pretrain, path, "--lr", "0.01", "--fresh")
        run(mia, path, *ADAPTIVE_ON_SCRATCH)
        assert lines(folder)[0]["from_scratch"] is True
        run(prune_dp, path, *words, "--fresh")
        assert (MADE / folder / "best.pth").read_bytes() == before

    def test_all_planned_steps_count_where_it_stops_early(self, path):
        run(
            prune_dp,
            path,
            "--defend_arg",
            "2",
            "--early_stop",
            "1",
            "--prune_epochs",
            "40",
            "--batch_size",
            "16",
        )
        said = manifest("l1unstructure_0.7_dp_2_model")
        assert (
            said["ran"] < 40
            and said["privacy"]["steps"] == 40 * 4
            and said["privacy"]["sampling_rate"] == 16 / 54
        )

    @pytest.mark.parametrize("engine", ENGINES)
    def test_interrupted_it_goes_on_with_the_same_seeded_noise(self, path, engine, monkeypatch):
        words = [
            "--defend_arg",
            "1",
            "--dp_engine",
            engine,
            "--prune_epochs",
            "5",
            "--save_every",
            "0",
            "--dp_noise",
            "seeded",
        ]
        run(prune_dp, path, *words)
        whole = files()
        with monkeypatch.context() as patched:
            patched.setattr(BaseModel, "accuracies", stopped_at(4))
            assert prune_dp.main(["cpu", path, *words, "--fresh"]) == 130
        assert list(MADE.rglob("model.resume"))
        (MADE / "l1unstructure_0.7_dp_1_model" / "manifest.json").unlink()
        run(prune_dp, path, *words)
        assert files() == whole

    def test_trainings_of_one_seed_share_no_noise(self, path):
        """Or the difference of two published models would be without any."""
        moved = {}
        original = torch.load(MADE / "victim_model/best.pth", weights_only=True)
        for noise in ("1", "2"):
            run(
                prune_dp,
                path,
                "--defend_arg",
                noise,
                "--prune_epochs",
                "1",
                "--dp_lr",
                "1e-3",
                "--weight_decay",
                "0",
                "--dp_noise",
                "seeded",
            )
            folder = MADE / f"l1unstructure_0.7_dp_{noise}_model"
            kept = torch.load(folder / "best_mask.pth", weights_only=True)["4.weight"]
            weights = torch.load(folder / "best.pth", weights_only=True)["4.weight"]
            moved[noise] = (weights - original["4.weight"])[kept]
        assert abs(float(torch.corrcoef(torch.stack(list(moved.values())))[0, 1])) < 0.2

    def test_a_config_for_scratch_changes_no_other_stage(self, write_config):
        path = write_config(epochs=2, from_scratch=True)
        run(pretrain, path)
        run(prune, path)
        assert manifest("l1unstructure_0.7_model")["parent"] != ""

    def test_it_is_never_trained_in_a_stack(self):
        from base_model import Objective
        from defenders.ppb import PosteriorBalancing

        assert (
            Objective.is_stackable()
            and PosteriorBalancing.is_stackable()
            and not PrivateSGD.is_stackable()
        )

    def test_the_same_command_gives_the_same_files_where_the_noise_is_seeded(self, path):
        made = []
        for _ in range(2):
            run(prune_dp, path, "--defend_arg", "1", "--fresh", "--dp_noise", "seeded")
            made.append(files())
            torch.rand(3)
        assert made[0] == made[1]

    def test_two_runs_of_one_command_share_masks_and_no_noise(self, path):
        """So that nothing published leads to the noise: initial weights and masks follow from the seed, and are the
        same; the updates of a single step differ by as much as sigma says."""
        words = [
            "--defend_arg",
            "3",
            "--from_scratch",
            "--prune_epochs",
            "1",
            "--weight_decay",
            "0",
        ]
        made = []
        for _ in range(2):
            run(prune_dp, path, *words, "--fresh")
            folder = MADE / "l1unstructure_0.7_dp_3_scratch_model"
            made.append(
                [
                    torch.load(folder / name, weights_only=True)
                    for name in ("best.pth", "best_mask.pth")
                ]
            )
        (weights, masks), (others, same) = made
        assert masks.keys() == same.keys() and all(
            torch.equal(masks[name], same[name]) for name in masks
        )
        moved = torch.cat([(weights[name] - others[name])[kept] for name, kept in masks.items()])
        deviation = (
            math.sqrt(2) * 3 / 54
        )  # the gradients, which differ as the weights drop out, are little beside it
        assert float(moved.std()) == pytest.approx(
            deviation, rel=5 / math.sqrt(2 * len(moved)) + 0.01
        )
        assert kstest(moved / deviation, "norm").pvalue > 1e-6

    def test_initial_weights_and_dropout_follow_from_the_seed_and_no_noise_does(
        self, path, monkeypatch
    ):
        """With entropy that is known, the same command gives the same weights to the last bit: whatever else is drawn
        is the seed's. With other entropy it does not."""
        made = []
        for key in (b"a" * 16, b"a" * 16, b"b" * 16):
            known = SeededStream(key)
            with monkeypatch.context() as patched:
                patched.setattr(os, "urandom", known.read)
                run(prune_dp, path, "--defend_arg", "1", "--from_scratch", "--fresh")
            made.append(
                torch.load(
                    MADE / "l1unstructure_0.7_dp_1_scratch_model/best.pth", weights_only=True
                )
            )
            assert known.calls > 0
        for name, tensor in made[0].items():
            assert torch.equal(tensor, made[1][name]) and not torch.equal(tensor, made[2][name]), (
                name
            )

    @pytest.mark.parametrize("engine", ENGINES)
    def test_interrupted_it_goes_on_with_fresh_noise_and_its_state_has_none(
        self, path, engine, monkeypatch, capsys
    ):
        words = [
            "--defend_arg",
            "1",
            "--dp_engine",
            engine,
            "--prune_epochs",
            "5",
            "--save_every",
            "0",
        ]
        read, real = [], os.urandom

        def noted(count):
            read.append(real(count))
            return read[-1]

        with monkeypatch.context() as patched:
            patched.setattr(BaseModel, "accuracies", stopped_at(4))
            patched.setattr(os, "urandom", noted)
            assert prune_dp.main(["cpu", path, *words]) == 130
        (kept,) = MADE.rglob("model.resume")
        state = read_digested(kept)["state"]
        assert state["defender"] == {"stream": {}}
        assert not any(drawn[:16] in kept.read_bytes() for drawn in read)
        again, better = [], itertools.count()
        # later epochs are better, so that it is their weights that are kept
        monkeypatch.setattr(BaseModel, "accuracies", lambda *_: [0.9 + next(better) / 10_000])
        for _ in range(2):
            copied = kept.read_bytes()
            capsys.readouterr()
            run(prune_dp, path, *words)
            assert (
                "going on after epoch 3" in (said := capsys.readouterr().out)
                and "with fresh noise" in said
            )
            again.append(torch.load(kept.parent / "best.pth", weights_only=True))
            (kept.parent / "manifest.json").unlink()
            kept.write_bytes(copied)
        assert any(not torch.equal(again[0][name], again[1][name]) for name in again[0])

    def test_what_is_finished_is_kept(self, path, capsys):
        run(prune_dp, path, "--defend_arg", "1")
        before = files()
        capsys.readouterr()
        run(prune_dp, path, "--defend_arg", "1")
        assert "kept results" in capsys.readouterr().out and files() == before

    def test_seeded_noise_is_said_wherever_epsilon_is(self, path, capsys):
        run(prune_dp, path, "--defend_arg", "1", "--from_scratch", "--dp_noise", "seeded")
        said = capsys.readouterr().out
        assert said.count(NO_GUARANTEE) == 2
        assert NO_GUARANTEE in next(
            line for line in said.splitlines() if "differentially private" in line
        )
        privacy = manifest("l1unstructure_0.7_dp_1_scratch_model")["privacy"]
        assert privacy["noise"] == "seeded" and privacy["warning"] == NO_GUARANTEE
        run(mia, path, *ADAPTIVE_ON_SCRATCH)
        assert NO_GUARANTEE in capsys.readouterr().out

    def test_a_model_from_before_there_was_secret_noise_is_read_and_has_no_guarantee(
        self, path, capsys
    ):
        run(prune_dp, path, "--defend_arg", "1", "--dp_noise", "seeded")
        for file in MADE.glob("*dp_1*/manifest.json"):
            old = json.loads(file.read_text())
            del old["options"]["dp_noise"], old["sha256"]
            for name in ("noise", "warning", "n"):
                del old["privacy"][name]
            file.write_bytes(sealed_json(old))
        capsys.readouterr()
        run(
            mia, path, "--defend", "dp", "--defend_arg", "1", "--adaptive", "--attacks", "threshold"
        )
        assert NO_GUARANTEE in capsys.readouterr().out
        run(prune_dp, path, "--defend_arg", "1", "--dp_noise", "seeded")
        assert NO_GUARANTEE in capsys.readouterr().out
        assert prune_dp.main(["cpu", path, "--defend_arg", "1"]) == 2
        assert "was made with dp_noise 'seeded' (now 'secret')" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "delta, warned", [("0.9", True), (str(1 / 54), True), ("0.0185", False), (None, False)]
    )
    def test_a_delta_that_lets_records_be_published_is_warned_of(self, path, capsys, delta, warned):
        run(
            prune_dp,
            path,
            "--defend_arg",
            "8",
            "--prune_epochs",
            "1",
            *(["--delta", delta] if delta else []),
        )
        said = [
            line
            for line in capsys.readouterr().out.splitlines()
            if "is not below 1/n, here 1/54" in line
        ]
        assert len(said) == warned

    @pytest.mark.parametrize(
        "stage, words, said",
        [
            (prune_dp, ["--defend_arg", "0"], "the noise multiplier of dp, must be above 0, not 0"),
            (prune_dp, ["--defend_arg", "-1"], "--defend_arg must be a number of 0 or more"),
            (prune_dp, ["--delta", "0"], "--delta must be a number between 0 and 1"),
            (prune_dp, ["--defend_arg", "1e-200"], "no epsilon can be computed"),
            (prune_dp, ["--delta", "1"], "--delta must be a number between 0 and 1"),
            (prune_dp, ["--dp_engine", "opcaus"], "--dp_engine must be 'pyvacy' or 'opacus'"),
            (prune_dp, ["--dp_noise", "public"], "--dp_noise must be 'secret' or 'seeded'"),
            (prune_dp, ["--dp_lr", "0"], "--dp_lr must be a number above 0"),
            (prune_dp, ["--max_grad_norm", "0"], "--max_grad_norm must be a number above 0"),
            (
                prune_dp,
                ["--defend", "ppb"],
                "prune_dp.py does not fine-tune with the defence 'ppb': run `python prune.py",
            ),
            (
                prune,
                ["--defend", "dp"],
                "prune.py does not fine-tune with the defence 'dp': run `python prune_dp.py",
            ),
            (mia, ["--from_scratch"], "name it with --defend dp"),
            (mia, ["--defend", "dp", "--defend_arg", "3"], "first run `python prune_dp.py"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, path, capsys, stage, words, said):
        before = files()
        capsys.readouterr()
        assert stage.main(["cpu", path, *words]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and files() == before


def test_digits_are_learnt_privately():
    """A step that is worth its name: with little noise, accuracy rises far above chance."""

    records = load("digits", data_root="unused", num_cls=10, input_dim=64)
    draw = generator(0, "dp")
    network = build("columnfc", shape=records.shape, num_cls=10, generator=draw)
    model = BaseModel(network, device=torch.device("cpu"), generator=draw)
    train, test = torch.arange(1200), torch.arange(1200, 1797)
    defender = started(count=1200, expected=128, noise=0.5, records=records)
    model.train(TrainSet(records, train), TrainConfig(epochs=8), generator=draw, objective=defender)
    assert model.test(records, test) > 0.6


def test_privacy_is_stored_as_plain_json(write_config):
    path = write_config(epochs=2)
    run(pretrain, path)
    run(prune_dp, path, "--defend_arg", "0.05")
    said = json.loads((MADE / "l1unstructure_0.7_dp_0.05_model" / "manifest.json").read_text())[
        "privacy"
    ]
    assert (
        said["prv"] is None
        and said["rdp"] > 0
        and said["noise_multiplier"] == 0.05
        and said["noise"] == "secret"
    )
