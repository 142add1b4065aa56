"""Options: who overrides whom, and one line with status 2 for all that is wrong."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT

import mia
import pretrain
import prune
import report
import study
from bench.command_line import parse
from bench.configs import command
from bench.options import OPTIONS
from core.console import UserError
from core.registry import Registry


def test_defaults_are_overridden_by_the_config_and_that_by_the_command_line(write_config):
    path = write_config(seed=3, lr=0.01)
    assert (OPTIONS["seed"].default, OPTIONS["lr"].default, OPTIONS["batch_size"].default) == (
        7,
        1e-3,
        128,
    )
    options = parse("pretrain", ["0", path, "--seed", "4"])
    assert (options.seed, options.lr, options.batch_size, options.device) == (4, 0.01, 128, "0")
    assert (
        options.train_seed == 4
        and parse("pretrain", ["0", path, "--train_seed", "9"]).train_seed == 9
    )


def test_what_follows_from_other_options(write_config, monkeypatch):
    path = write_config(epochs=51, hidden_size=5, image_size=32)
    options = parse("prune", ["cpu", path])
    assert (options.prune_epochs, options.defend_arg, options.prune_sparsity) == (25, None, 0.7)
    assert options.data_root == "data/datasets"
    monkeypatch.setenv("MIA_DATA", "elsewhere")
    assert parse("prune", ["cpu", path]).data_root == "elsewhere"
    assert parse("prune", ["cpu", path, "--data_root", "here"]).data_root == "here"
    for stage in ("prune", "mia"):
        assert parse(stage, ["cpu", path, "--defend", "ppb"]).defend_arg == 4
        assert parse(stage, ["cpu", path, "--defend", "adv"]).defend_arg == 1
        assert (
            parse(stage, ["cpu", path, "--defend", "adv", "--defend_arg", "2.50"]).defend_arg == 2.5
        )
    assert parse("prune", ["cpu", write_config("kept.json", prune_epochs=3)]).prune_epochs == 3
    assert parse("prune", ["cpu", write_config("loose.json", defend_arg=4)]).defend_arg is None


def test_numbers_may_stand_as_texts(write_config):
    options = parse("prune", ["cpu", write_config(prune_sparsity="0.5", shadow_num="3", lr="1e-2")])
    assert (options.prune_sparsity, options.shadow_num, options.lr) == (0.5, 3, 0.01)


@pytest.mark.parametrize("stage", ["pretrain", "prune", "prune_dp", "mia"])
def test_what_nothing_reads_is_taken_as_in_a_config(stage, write_config):
    path = write_config()
    plain = parse(stage, ["cpu", path])
    given = parse(stage, ["cpu", path, "--image_size", "32", "--hidden_size=128"])
    assert given.record == plain.record and command("prune", given) == command("prune", plain)


@pytest.mark.parametrize("stage", ["pretrain", "prune", "prune_dp", "mia"])
def test_an_option_of_other_stages_says_of_which(stage, write_config):
    for name, option in OPTIONS.items():
        if stage not in option.stages and option.stages:
            with pytest.raises(UserError) as caught:
                parse(stage, ["cpu", write_config(), f"--{name}", "1"])
            of = ", ".join(f"{other}.py" for other in option.stages)
            assert str(caught.value) == f"--{name} is an option of {of}, not of {stage}.py"


def test_an_option_may_be_repeated_with_one_value(write_config):
    assert (
        parse(
            "mia", ["cpu", write_config(), "--seed", "1", "--seed=1", "--original", "--original"]
        ).seed
        == 1
    )


def test_original_does_not_mind_a_defence_in_the_config(write_config):
    options = parse(
        "mia", ["0", write_config(defend="ppb", defend_arg=2, adaptive=True), "--original"]
    )
    assert (options.defend, options.defend_arg, options.adaptive) == ("", None, False)


def test_attacks_by_name(write_config):
    path = write_config()
    assert parse("mia", ["0", path]).attacks == ("samia",)
    assert parse("mia", ["0", path, "--attacks", "nn, samia,nn"]).attacks == ("nn", "samia")
    assert parse("mia", ["0", path, "--attacks", "all"]).attacks == ("all",)


@pytest.mark.parametrize(
    "config", sorted((PROJECT / "config").glob("*.json")), ids=lambda path: path.stem
)
def test_shipped_configs_are_the_papers(config):
    options = parse("prune", ["0", str(config)] + (["--pruner_name", "l1unstructure"]))
    assert (options.lr, options.weight_decay, options.batch_size, options.early_stop) == (
        1e-3,
        5e-4,
        128,
        5,
    )
    assert (options.shadow_num, options.seed, options.optimizer) == (5, 7, "adam")
    assert options.epochs == (50 if options.model_name == "columnfc" else 100)
    assert options.prune_epochs == options.epochs // 2


def test_there_is_a_config_for_every_data_set_and_network_of_the_paper():
    names = {path.stem for path in (PROJECT / "config").glob("*.json")}
    assert names == {
        f"{data}_{net}"
        for data in ("cifar10", "cifar100", "svhn", "chmnist")
        for net in ("resnet18", "vgg16", "dense")
    } | {"location", "texas100", "purchase", "mnist_resnet18", "digits_columnfc", "digits_resnet18"}


MISTAKES = [  # stage, words, changes of the config, what the line must say
    (
        "mia",
        ["--attacks", "samia,treshold"],
        {},
        "unknown attack 'treshold', did you mean 'threshold'?",
    ),
    ("mia", ["--attacks", ""], {}, "unknown attack ''"),
    (
        "prune",
        ["--pruner_name", "l1structured"],
        {},
        "unknown pruner 'l1structured', did you mean 'l1structure'?",
    ),
    ("prune", ["--defend", "pbb"], {}, "unknown defence 'pbb', did you mean 'ppb'?"),
    ("pretrain", [], {"epoch": 3}, "unknown key 'epoch', did you mean 'epochs'?"),
    (
        "pretrain",
        [],
        {"model_name": "resnet"},
        "unknown network 'resnet', did you mean 'resnet18'?",
    ),
    ("pretrain", [], {"data_path": None, "dataset_name": "loction"}, "did you mean 'location'?"),
    ("pretrain", [], {"attacks": "simia"}, "did you mean 'samia'?"),
    ("prune", ["--prune_sparsity", "1"], {}, "--prune_sparsity must be a number between 0 and 1"),
    ("prune", ["--prune_sparsity", "0"], {}, "between 0 and 1"),
    ("prune", ["--prune_sparsity", "70%"], {}, "between 0 and 1"),
    ("prune", ["--prune_sparsity", "nan"], {}, "between 0 and 1"),
    (
        "prune",
        [],
        {"prune_sparsity": 70},
        "prune_sparsity must be a number between 0 and 1, neither included, not 70",
    ),
    (
        "prune",
        ["--pruner_name", "l1structure"],
        {},
        "columnfc has none: use --pruner_name l1unstructure",
    ),
    (
        "prune",
        ["--pruner_name", "slim"],
        {},
        "prunes BatchNorm2d layers, of which columnfc has none",
    ),
    ("mia", ["--adaptive"], {}, "name it with --defend"),
    ("mia", ["--original", "--defend", "ppb"], {}, "leave out --defend"),
    ("pretrain", [], {"zzz": 1}, "unknown key 'zzz' (keys: dataset_name,"),
    ("pretrain", ["--zzz"], {}, "unknown argument '--zzz' (see pretrain.py --help)"),
    ("mia", ["----adaptive"], {}, "unknown argument '----adaptive', did you mean '--adaptive'?"),
    (
        "pretrain",
        ["--defend", "ppb"],
        {},
        "--defend is an option of prune.py, prune_dp.py, quantize.py, mia.py, not of pretrain.py",
    ),
    (
        "mia",
        ["--batch_size", "128"],
        {},
        "--batch_size is an option of pretrain.py, prune.py, prune_dp.py, quantize.py, not of mia",
    ),
    (
        "mia",
        ["--prune-epochs=50"],
        {},
        "--prune_epochs is an option of prune.py, prune_dp.py, not of mia.py",
    ),
    ("prune", ["--split", "inout"], {}, "--split is an option of pretrain.py, not of prune.py"),
    (
        "pretrain",
        ["--seed", "1", "--seed", "2"],
        {},
        "--seed is given twice, with '1' and '2': give it once",
    ),
    (
        "mia",
        ["--attacks", "gap", "--attacks", "nn"],
        {},
        "--attacks is given twice, with 'gap' and 'nn': give it once",
    ),
    (
        "pretrain",
        ["--seed", "4294967295"],
        {},
        "--seed must be a whole number from 0 to 2147483647, not '4294967295'",
    ),
    (
        "pretrain",
        ["--train_seed", str(2**31)],
        {},
        "--train_seed must be a whole number from 0 to 2147483647",
    ),
    (
        "pretrain",
        [],
        {"seed": 2**31},
        "seed must be a whole number from 0 to 2147483647, not 2147483648",
    ),
    ("pretrain", [], {"adaptive": "yes"}, "adaptive must be true or false, not 'yes'"),
    ("mia", ["--original"], {"defend": "nope", "adaptive": True}, "unknown defence 'nope'"),
    ("pretrain", [], {"lr": "a lot"}, "lr must be a number above 0, not 'a lot'"),
    ("pretrain", ["--seed"], {}, "expected one argument"),
    ("pretrain", ["--seed", "-1"], {}, "--seed must be a whole number from 0"),
    ("pretrain", ["--seed", "1.5"], {}, "--seed must be a whole number"),
    ("pretrain", ["--shadow_num", "0"], {}, "--shadow_num must be a whole number from 1"),
    ("pretrain", [], {"epochs": True}, "epochs must be a whole number from 1"),
    ("pretrain", [], {"epochs": [100]}, "epochs must be a whole number from 1"),
    ("pretrain", [], {"lr": 0}, "lr must be a number above 0, not 0"),
    ("pretrain", ["--precision", "fp16"], {}, "--precision must be 'fp32' or 'bf16', not 'fp16'"),
    ("pretrain", [], {"optimizer": "adamw"}, "optimizer must be 'adam' or 'sgd', not 'adamw'"),
    ("pretrain", [], {"num_cls": None}, "num_cls is missing"),
    ("pretrain", [], {"dataset_name": "../up"}, "dataset_name must be a name of letters"),
    ("pretrain", [], {"dataset_name": ".."}, "dataset_name must be a name of letters"),
    ("pretrain", [], {"input_dim": 13}, "12 columns"),
    ("pretrain", [], {"num_cls": 2}, "label 2; with num_cls 2 labels run from 0 to 1"),
    ("pretrain", [], {"model_name": "vgg16"}, "vgg16bn takes images"),
    ("pretrain", [], {"data_path": "absent.npz"}, "no file absent.npz in /"),
    (
        "pretrain",
        [],
        {"data_path": "x" * 300},
        "no file xxx",
    ),  # a name longer than file systems allow
    ("mia", ["--results", "x" * 300], {}, "x/tiny_columnfc/split.npz is not there"),
    ("pretrain", ["--results", "new/" + "x" * 300], {}, "x/tiny_columnfc: File name too long"),
    (
        "pretrain",
        [],
        {"num_cls": 2**31 - 1},
        "num_cls must be a whole number from 2 to 100000, not 2147483647",
    ),
    ("mia", [], {"attacks": []}, "attacks must be attack names, separated by commas, not []"),
    ("mia", [], {"attacks": {"samia": True}}, "attacks must be attack names"),
    ("prune", [], {}, "first run `python pretrain.py cpu"),
    ("mia", [], {}, "first run `python pretrain.py cpu"),
]


@pytest.mark.parametrize("stage, words, changes, says", MISTAKES)
def test_a_mistake_gets_one_line_status_2_and_nothing_written(
    stage, words, changes, says, write_config, capsys
):
    path = write_config(**changes)
    main = {"pretrain": pretrain, "prune": prune, "mia": mia}[stage].main
    assert main(["cpu", path, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert says in error
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    "text, says", [("{", "is not JSON"), ("[1]", "must be a JSON object"), ("\xff", "JSON")]
)
def test_a_config_that_is_none(text, says, tmp_path, capsys):
    (tmp_path / "bad.json").write_bytes(text.encode("latin-1"))
    assert pretrain.main(["cpu", str(tmp_path / "bad.json")]) == 2
    assert says in capsys.readouterr().err
    assert pretrain.main(["cpu", "absent.json"]) == 2
    assert "absent.json: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["gpu", "-1", "cuda:x", "cpu:0", "99"])
def test_a_device_that_is_none(device, write_config, capsys):
    assert pretrain.main([device, write_config()]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_mistake_and_help_answer_without_importing_torch(write_config):
    code = "import sys, mia; status = mia.main(sys.argv[1:]); print('torch' in sys.modules); sys.exit(status)"
    result = subprocess.run(
        [sys.executable, "-c", code, "cpu", write_config(), "--attacks", "nm"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
    )
    assert (result.returncode, result.stdout) == (
        2,
        "False\n",
    ) and "did you mean 'nn'" in result.stderr
    result = subprocess.run(
        [sys.executable, PROJECT / "mia.py", "--help"], capture_output=True, text=True
    )
    assert (
        result.returncode == 0
        and "Nasr et al." in result.stdout
        and "--prune_sparsity X" in result.stdout
    )


def test_command_names_what_differs_from_config_and_defaults(write_config):
    path = write_config(seed=3)
    options = parse(
        "mia",
        ["1", path, "--defend", "ppb", "--defend_arg", "2", "--attacks", "nn", "--results", "out"],
    )
    assert (
        command("prune", options)
        == f"python prune.py 1 {path} --defend ppb --defend_arg 2 --results out"
    )
    spaced = parse("prune", ["0", write_config("a b.json", defend="ppb"), "--defend", ""])
    assert shlex.split(command("prune", spaced))[-2:] == ["--defend", ""]
    assert parse("prune", shlex.split(command("prune", spaced))[2:]).defend == ""
    assert command("pretrain", options) == f"python pretrain.py 1 {path} --results out"
    assert parse("prune", command("prune", options).split()[2:]).defend_arg == 2


def test_a_registry_refuses_a_name_that_is_taken():
    registry = Registry("thing")
    registry.register("a", "m:f", "first", alias="b")
    for name in ("a", "b"):
        with pytest.raises(ValueError, match=f"{name!r} is registered twice"):
            registry.register(name, "m:g", "second")
    assert registry.check("b") == "a" and list(registry) == ["a"]
    with pytest.raises(UserError, match="unknown thing 'c'"):
        registry.load("c")


@pytest.mark.parametrize("stage, words", [("prune", []), ("mia", []), ("mia", ["--original"])])
def test_a_strength_without_a_defence_is_refused(stage, words, write_config):
    with pytest.raises(
        UserError, match="--defend_arg is the strength of a defence: name it with --defend"
    ):
        parse(stage, ["cpu", write_config(), "--defend_arg", "3", *words])
    assert (
        parse(stage, ["cpu", write_config(defend_arg=3), *words]).defend_arg is None
    )  # a config may be for several


def test_a_folder_of_data_that_is_none_is_refused_only_where_it_is_needed(
    write_config, monkeypatch, capsys
):
    path = write_config()
    monkeypatch.setenv("MIA_DATA", "~nobody-here/x")
    assert pretrain.main(["cpu", path]) == 2
    assert capsys.readouterr().err.startswith("error: MIA_DATA: there is no home folder")
    assert pretrain.main(["cpu", path, "--data_root", "elsewhere"]) == 0


def test_a_verdict_is_not_an_attack(write_config, capsys):
    assert mia.main(["cpu", write_config(), "--attacks", "conf"]) == 2
    assert "'conf' is what the attack 'threshold' says: name that" in capsys.readouterr().err


def test_of_too_many_shadow_models_the_error_says_how_many_there_are(write_config, capsys):
    path = write_config(shadow_num=1, epochs=1)
    assert pretrain.main(["cpu", path]) == 0
    assert prune.main(["cpu", path, "--shadow_num", "3"]) == 2
    assert capsys.readouterr().err.endswith(", or use the 1 there are by --shadow_num 1\n")


def test_a_misspelt_config_gets_the_nearest_file(write_config, capsys):
    assert pretrain.main(["cpu", "config/digit_columnfc.json"]) == 2
    assert capsys.readouterr().err.endswith("; did you mean 'config/digits_columnfc.json'?\n")


@pytest.mark.parametrize(
    "main, words, said",
    [
        (
            study.main,
            ["x.json", "--dry-rum"],
            "unknown argument '--dry-rum', did you mean '--dry_run'?",
        ),
        (report.main, ["results", "--studdy", "x"], "'--studdy', did you mean '--study'?"),
        (mia.main, ["config.json"], "required: config_path, after device: `mia.py 0 config/"),
        (mia.main, ["cpu", "x.json", "--attacks", "lira,", "rmia"], "commas alone, without spaces"),
    ],
)
def test_what_is_nearly_right_is_told_what_would_be(main, words, said, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
