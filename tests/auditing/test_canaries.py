"""Canaries in prune_dp.py and audit.py canaries: from the training to a claim that holds or not."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import MADE, files, lines, make_once, manifest, run

import mia
import pretrain
import prune_dp
from core import console
from attackers.canary_bound import gaussian_bound, one_run_bound, residuals
from auditing import canaries
from base_model import BaseModel
from bench import split_file
from bench.canaries import read_canaries
from bench.layout import ModelSet
from bench.options import Options
from bench.results import find_results
from core.files import read_arrays
from defenders.accounting import guarantee
from defenders.dp import PrivateSGD
from models import build
from reporting.results import results_table
from reporting.summary import label_configurations

main = console.stage(canaries.main)  # as audit.py runs it
WORDS = ["--from_scratch", "--defend_arg", "1", "--canaries", "100"]
FOLDER = "l1unstructure_0.7_dp_1_scratch_model"
SHADOW = "shadow_l1unstructure_0.7_dp_1_scratch_model_0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A victim from scratch with 100 canaries, and two shadow models."""
    folder = tmp_path_factory.mktemp("canaries")
    return make_once(folder, (pretrain,), (prune_dp, *WORDS), epochs=4)


@pytest.fixture
def path(trained):
    return trained.copy_here()


@pytest.fixture
def untrained(write_config):
    path = write_config(epochs=4)
    run(pretrain, path)
    return path


def read_split():
    options = Options(stage="mia", dataset_name="tiny", model_name="columnfc")
    return split_file.read_split(ModelSet(options))


def audited(*words, folder=FOLDER):
    """The exit status, and canaries.json."""
    status = main([str(MADE / folder), *words])
    return status, json.loads((MADE / folder / "canaries.json").read_text())


class TestTraining:
    def test_the_victim_alone_has_them_and_half_count(self, path):
        said, shadow = manifest(FOLDER), manifest(SHADOW)
        assert said["options"]["canaries"] == 100 and "canaries.npz" in said["files"]
        assert said["privacy"]["n"] == 54 + 50 and shadow["privacy"]["n"] == 54
        given = guarantee(n=104, batch_size=104, noise_multiplier=1.0, epochs=2, delta=None)
        assert said["privacy"]["epsilon"] == given.epsilon and said["privacy"]["steps"] == 2
        assert "canaries.npz" not in shadow["files"]
        assert said["split"] == manifest("victim_model")["split"]

    def test_those_whose_coin_says_so_are_trained_on_and_no_other(self, untrained, monkeypatch):
        seen = []
        setup = PrivateSGD.setup

        def noting(self, context):
            data = context.data
            seen.append((data.records.x[data.train], context.nominal_size, data.dev.tolist()))
            setup(self, context)

        monkeypatch.setattr(PrivateSGD, "setup", noting)
        run(prune_dp, untrained, *WORDS)
        made, _ = read_canaries(MADE / FOLDER)
        _, split = read_split()
        victim = [(x, dev) for x, size, dev in seen if size == 104]
        assert len(seen) == 3
        ((x, dev),) = victim
        assert torch.equal(x[54:], torch.from_numpy(made.x[made.coin]))
        assert len(x) == 54 + made.coin.sum() and 30 < made.coin.sum() < 70
        assert dev == split["victim_dev"].tolist()
        assert {len(x) for x, size, _ in seen if size == 54} == {54}

    def test_mislabelled_ones_are_of_records_that_are_not_the_victim_s(self, path, trained):
        made, _ = read_canaries(MADE / FOLDER)
        with np.load(json.loads(open(trained.config).read())["data_path"]) as data:
            x, y = data["x"], data["y"]
        _, split = read_split()
        victims = {
            number for part in ("train", "dev", "test") for number in split[f"victim_{part}"]
        }
        for one, label in zip(made.x, made.y):
            (row,) = np.flatnonzero((x == one).all(axis=1))
            assert row not in victims and y[row] != label

    def test_accuracy_is_of_records_alone(self, path, trained):
        said = manifest(FOLDER)["accuracy"]
        _, split = read_split()
        network = build("columnfc", shape=(12,), num_cls=3, generator=torch.Generator())
        network.load_state_dict(torch.load(MADE / FOLDER / "best.pth", weights_only=True))
        with np.load(json.loads(open(trained.config).read())["data_path"]) as data:
            x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
        right = network.eval()(x).argmax(dim=1) == y
        for part in ("train", "dev", "test"):
            assert said[part] == pytest.approx(float(right[split[f"victim_{part}"]].float().mean()))

    def test_interrupted_it_goes_on_with_the_same_canaries(self, untrained, monkeypatch):
        words = [*WORDS, "--prune_epochs", "5", "--save_every", "0", "--dp_noise", "seeded"]
        run(prune_dp, untrained, *words)
        whole, ran, real = files(), [], BaseModel.accuracies

        def stopped(self, *args):
            ran.append(1)
            if len(ran) == 4:
                raise KeyboardInterrupt
            return real(self, *args)

        with monkeypatch.context() as patched:
            patched.setattr(BaseModel, "accuracies", stopped)
            assert prune_dp.main(["cpu", untrained, *words, "--fresh"]) == 130
        assert list(MADE.rglob("model.resume"))
        (MADE / FOLDER / "manifest.json").unlink()
        run(prune_dp, untrained, *words)
        assert files() == whole

    def test_what_is_there_is_kept_and_other_canaries_are_refused(self, path, capsys):
        before = files()
        run(prune_dp, path, *WORDS)
        assert files() == before and f"victim: kept {MADE / FOLDER}" in capsys.readouterr().out
        assert prune_dp.main(["cpu", path, *WORDS[:-1], "60"]) == 2
        assert "canaries 100 (now 60)" in capsys.readouterr().err and files() == before

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--canaries", "121"], "not the victim's, of which there are 120: take as many"),
            (["--canaries", "-1"], "--canaries must be a whole number from 0"),
            (["--canaries", "9", "--canary_kind", "wrong"], "mislabelled"),
            (["--canary_seed", "1"], "--canary_seed is of canaries: ask for some"),
        ],
    )
    def test_what_cannot_be_is_said_before_any_work(self, untrained, words, said, capsys):
        before = files()
        assert prune_dp.main(["cpu", untrained, "--from_scratch", *words]) == 2
        assert said in capsys.readouterr().err and files() == before

    def test_where_all_records_are_the_victim_s_there_are_none_to_copy(self, write_config, capsys):
        path = write_config(epochs=1, split="inout")
        run(pretrain, path)
        assert prune_dp.main(["cpu", path, *WORDS]) == 2
        assert "there are 0: take --canary_kind random" in capsys.readouterr().err
        run(prune_dp, path, *WORDS, "--canary_kind", "random")
        made, _ = read_canaries(MADE / FOLDER)
        assert len(made.x) == 100

    def test_without_canaries_their_options_say_nothing(self, write_config):
        path = write_config(epochs=2, canary_kind="random", canary_seed=5)
        run(pretrain, path)
        run(prune_dp, path, "--from_scratch", "--defend_arg", "1")
        options = manifest(FOLDER)["options"]
        assert (options["canary_kind"], options["canary_seed"]) == ("mislabelled", 0)
        assert set(manifest(FOLDER)["files"]) == {"best.pth", "best_mask.pth"}

    def test_seeds_give_other_canaries_and_coins(self, untrained):
        found = []
        for words in (["--canary_seed", "1"], ["--canary_seed", "2"], ["--train_seed", "3"]):
            run(prune_dp, untrained, *WORDS, *words, "--fresh", "--prune_epochs", "1")
            found.append(read_canaries(MADE / FOLDER)[0].coin)
        assert all(30 < (one != other).sum() < 70 for one, other in itertools.pairwise(found))

    def test_attacks_have_none_of_them_as_targets_and_say_that_they_were_there(self, path, capsys):
        run(mia, path, *WORDS[:-2], "--adaptive", "--defend", "dp", "--attacks", "threshold,loss")
        said = capsys.readouterr().out
        assert "trained on about half of 100 canaries too" in said
        assert lines(FOLDER)[0]["members"] == 54
        _, arrays = read_arrays(MADE / FOLDER / "scores.npz")
        targets = [array for name, array in arrays.items() if name.startswith("records")]
        assert targets and all(array.max() < 240 for array in targets)
        table = results_table(find_results(Path("results")), Path("results"))
        assert set(table["canaries"]) == {100}
        assert (
            label_configurations(table)[0]["model"].str.endswith("from scratch, 100 canaries").all()
        )


class TestAudit:
    def test_it_holds_the_claim_against_the_canaries(self, path, capsys):
        before = files()
        status, found = audited()
        said = capsys.readouterr().out
        privacy = manifest(FOLDER)["privacy"]
        assert status == 0 and "no bound exceeds the claim" in said and "REFUTED" not in said
        assert (found["claimed_epsilon"], found["delta"]) == (privacy["epsilon"], privacy["delta"])
        assert found["canaries"] == 100 and found["references"] == ["2 shadow models"]
        assert found["refuted_by"] == [] and found["model"] == manifest(FOLDER)["files"]["best.pth"]
        made, _ = read_canaries(MADE / FOLDER)
        assert found["entered"] == made.coin.sum() and f"of which {made.coin.sum()} were" in said
        assert {
            name: digest for name, digest in files().items() if "canaries.json" not in name
        } == (before)

    def test_scores_are_log_odds_less_what_shadow_models_tell(self, path):
        made, _ = read_canaries(MADE / FOLDER)

        def log_odds(folder):
            network = build("columnfc", shape=(12,), num_cls=3, generator=torch.Generator())
            network.load_state_dict(torch.load(MADE / folder / "best.pth", weights_only=True))
            p = network.double().eval()(torch.from_numpy(made.x).double()).softmax(dim=1)
            p = p[range(100), made.y].detach().numpy()
            return np.log(p / (1 - p))

        shadows = np.mean([log_odds(SHADOW[:-1] + str(number)) for number in (0, 1)], axis=0)
        scores = residuals(log_odds(FOLDER), shadows[None])
        _, found = audited()
        for name, bound in (("one_run", one_run_bound), ("gaussian", gaussian_bound)):
            expected = bound(scores, made.coin, delta=found["delta"], level=0.05)
            assert found["bounds"][name] == pytest.approx(vars(expected))

    def test_at_another_delta_both_sides_are_at_it(self, path):
        _, found = audited("--delta", "1e-5")
        given = guarantee(n=104, batch_size=104, noise_multiplier=1.0, epochs=2, delta=1e-5)
        assert (found["delta"], found["claimed_epsilon"]) == (1e-5, given.epsilon)

    def test_training_without_its_noise_is_found_out(self, untrained, monkeypatch, capsys):
        """Much noise is claimed, and none is added; with it, the same audit finds nothing. The last
        epoch is kept, whatever dev says."""
        epoch = itertools.count()
        monkeypatch.setattr(PrivateSGD, "selection_metric", lambda *_: [float(next(epoch))])
        words = ["--from_scratch", "--defend_arg", "50", "--prune_epochs", "60", "--dp_lr", "2"]
        words += ["--canaries", "200", "--canary_kind", "random"]
        folder = "l1unstructure_0.7_dp_50_scratch_model"
        run(prune_dp, untrained, *words)
        assert audited(folder=folder)[0] == 0
        monkeypatch.setattr(PrivateSGD, "noise", lambda self, parameter, std: 0 * parameter.data)
        run(prune_dp, untrained, *words, "--fresh")
        status, found = audited(folder=folder)
        said = capsys.readouterr().out
        assert status == 3 and "REFUTED: with 95 % confidence epsilon is above the claimed" in said
        assert found["refuted_by"] == ["one_run", "gaussian"]
        for bound in found["bounds"].values():
            assert bound["epsilon"] > 1.5 * found["claimed_epsilon"]

    def test_of_a_fine_tuning_the_original_is_a_reference_and_seeded_noise_is_said(
        self, untrained, capsys
    ):
        run(prune_dp, untrained, *WORDS[1:], "--dp_noise", "seeded")
        status, found = audited(folder="l1unstructure_0.7_dp_1_model")
        assert status == 0 and found["references"] == ["the original", "2 shadow models"]
        assert "of the fine-tuning alone; no guarantee: the noise follows" in found["remark"]
        assert found["remark"] in capsys.readouterr().out

    def test_shadow_models_may_be_gone(self, path):
        for number in (0, 1):
            (MADE / (SHADOW[:-1] + str(number)) / "manifest.json").unlink()
        assert audited()[1]["references"] == []

    @pytest.mark.parametrize(
        ("folder", "words", "said"),
        [
            ("nowhere", [], "holds no finished model"),
            ("", [], "holds no finished model"),
            ("victim_model", [], "was trained without canaries: run prune_dp.py"),
            (SHADOW, [], "was trained without canaries"),
            (FOLDER, ["--delta", "1"], "--delta must be a number above 0 and below 1, not 1"),
            (FOLDER, ["--delta", "x"], "--delta"),
        ],
    )
    def test_bad_input_is_one_line(self, path, folder, words, said, capsys):
        before = files()
        assert main([str(MADE / folder), *words]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1 and files() == before

    @pytest.mark.parametrize("name", ["canaries.npz", "best.pth", "manifest.json"])
    def test_damage_is_one_line(self, path, name, capsys):
        file = MADE / FOLDER / name
        file.write_bytes(file.read_bytes()[:-20])
        assert main([str(MADE / FOLDER)]) == 2
        told = capsys.readouterr().err
        assert name in told and "damaged" in told and told.count("\n") == 1
        assert not (MADE / FOLDER / "canaries.json").exists()
