"""The options that say what a model is and how it is made: data, network, training, compression,
defence."""

from __future__ import annotations

from dataclasses import dataclass

from attackers.canaries import KINDS
from bench.option import ANY_TRAINING, PRUNED, QUANTIZED, TRAINING, option
from bench.values import (
    between,
    choice,
    epoch_list,
    flag,
    folder_name,
    name_or_none,
    not_negative,
    one_of,
    path,
    positive,
    share_of_some,
    switch,
    whole,
)
from datasets import DATASETS, SPLITS
from defenders import DEFENDERS
from models import MODELS
from pruner import PRUNERS
from quantizer import QUANTIZERS

_STRENGTHS = ", ".join(
    f"{name} {DEFENDERS[name].options['default']:g}" for name in DEFENDERS if name
)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Part of `Options`."""

    # data and network
    dataset_name: str = option(
        folder_name, None, f"data set: {', '.join(DATASETS)}; any name with data_path"
    )
    data_path: str | None = option(
        path, None, "an .npz file of your own, arrays x and y, in place of a named data set"
    )
    data_root: str = option(
        path, None, "folder of the data sets (default: $MIA_DATA, else data/datasets)", result=False
    )
    model_name: str = option(one_of(MODELS), None, f"network: {', '.join(MODELS)}")
    norm: str = option(
        choice("batch", "group"),
        "batch",
        "normalisation of image networks: batch, or group, in which records do not meet, for "
        "prune_dp.py",
        later=True,
    )
    num_cls: int = option(whole(2, 100000), None, "number of classes")
    input_dim: int = option(whole(1), None, "channels of an image, columns of a table")

    # training
    epochs: int = option(whole(1), 100, "most epochs of pretraining", ANY_TRAINING)
    prune_epochs: int = option(
        whole(0),
        None,
        "most epochs of fine-tuning, of each round (default: epochs // 2 // prune_iterations)",
        "prune prune_dp",
    )
    keep_epochs: tuple[int, ...] = option(
        epoch_list,
        (),
        "epochs whose weights are kept too, 0 = before the first, separated by commas; for --rewind",
        "pretrain",
        result=False,
    )
    batch_size: int = option(whole(2), 128, "records a step", ANY_TRAINING)
    optimizer: str = option(
        choice("adam", "sgd"), "adam", "adam, or sgd with momentum .9", TRAINING
    )
    lr: float = option(positive, 1e-3, "learning rate", TRAINING)
    weight_decay: float = option(not_negative, 5e-4, "weight decay", ANY_TRAINING)
    early_stop: int = option(
        whole(0),
        5,
        "stop after more than so many epochs without a better accuracy on dev; 0 = never",
        ANY_TRAINING,
    )
    shadow_num: int = option(whole(1, 10000), 5, "number of shadow models")
    split: str = option(
        choice(*SPLITS),
        "paper",
        "paper: shadow models never see the victim's records; inout: half of them are trained on "
        "each record, for online attacks",
        "pretrain",
    )
    attacker_records: float = option(
        share_of_some,
        1.0,
        "share of the attacker's half of the records that shadow models are dealt, in the paper's "
        "split; the victim is the same at any share",
        "pretrain",
        later=True,
    )
    augment: bool = option(
        switch, False, "train on images flipped and shifted at random", TRAINING, later=True
    )
    seed: int = option(whole(0), 7, "seed of the split")
    train_seed: int = option(
        whole(0),
        None,
        "seed of all else: weights, order of batches, dropout; not of private noise, see "
        "--dp_noise (default: the seed)",
    )

    # compression and defence
    pruner_name: str = option(one_of(PRUNERS), "l1unstructure", ", ".join(PRUNERS), PRUNED)
    prune_sparsity: float = option(between, 0.7, "share that is pruned, in (0, 1)", PRUNED)
    prune_iterations: int = option(
        whole(1, 100),
        1,
        "rounds of pruning and fine-tuning, round k of K leaving (1 - sparsity)^(k/K) of the weights",
        PRUNED,
        later=True,
    )
    rewind: int | None = option(
        whole(0),
        None,
        "start each round from the weights after this epoch of pretraining, 0 = the initial ones "
        "(lottery ticket, Frankle et al. 2020); needs pretrain.py --keep_epochs",
        PRUNED,
        later=True,
    )
    quantizer: str = option(
        name_or_none(QUANTIZERS),
        "",
        f"quantiser: {', '.join(QUANTIZERS)}; or '' for none",
        QUANTIZED,
        later=True,
    )
    pruned: bool = option(
        switch,
        False,
        "what is quantised are the models of these pruning options, not the originals",
        QUANTIZED,
        later=True,
    )
    quantize_epochs: int | None = option(
        whole(0),
        None,
        "most epochs of fine-tuning through the quantiser; 0 = none, weights are rounded to nearest "
        "(default: epochs // 2)",
        "quantize",
        later=True,
    )
    defend: str = option(
        one_of(DEFENDERS),
        "",
        f"defence: {', '.join(name or repr(name) for name in DEFENDERS)}",
        PRUNED,
    )
    defend_arg: float | None = option(
        not_negative, None, f"strength of the defence (default: {_STRENGTHS})", PRUNED
    )
    dp_engine: str = option(
        choice("pyvacy", "opacus"),
        "pyvacy",
        "whose optimiser takes the private step: pyvacy or opacus",
        "prune_dp",
    )
    dp_noise: str = option(
        choice("secret", "seeded"),
        "secret",
        "where noise and draw of batches come from: secret, the operating system; or seeded, "
        "--train_seed and the data, for replication: nothing is guaranteed then",
        "prune_dp",
    )
    dp_lr: float = option(positive, 1.0, "learning rate of the private steps", "prune_dp")
    max_grad_norm: float = option(
        positive, 1.0, "what each record's gradient is clipped to", "prune_dp"
    )
    delta: float | None = option(
        between, None, "of the guarantee (default: the largest power of ten below 1/n)", "prune_dp"
    )
    canaries: int = option(
        whole(0, 10**6),
        0,
        "records made up for `audit.py canaries`, each of which enters the victim's training by a coin",
        "prune_dp",
        later=True,
    )
    canary_kind: str = option(
        choice(*KINDS),
        "mislabelled",
        "of the canaries: mislabelled, copies of records that are not the victim's; or random inputs "
        "and labels",
        "prune_dp",
        later=True,
    )
    canary_seed: int = option(
        whole(0),
        0,
        "seed of the canaries and their coins, together with --train_seed",
        "prune_dp",
        later=True,
    )
    from_scratch: bool = option(
        flag,
        False,
        "not from the pretrained weights but from random ones: the guarantee then holds for the "
        "network",
        "prune_dp mia",
    )
