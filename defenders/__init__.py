"""Defences in fine-tuning. A defence changes one thing of the training loop: the loss of a batch,
or the step."""

from core.registry import Registry

DEFENDERS = Registry("defence")
# default: the strength (`--defend_arg`) where none is given
# strengths: the least and the largest; None: any of 0 or more
# option_names: options that only this defence reads
# keyed: it draws from streams of its own, and takes the `key` of those that follow from the seed
# stage: which fine-tunes with it
DEFENDERS.register(
    "", "base_model:Objective", "none beyond early stopping and weight decay", default=None
)
DEFENDERS.register(
    "ppb",
    "defenders.ppb:PosteriorBalancing",
    "pair-based posterior balancing, strength lambda (Yuan & Zhang 2022)",
    default=4.0,
)
DEFENDERS.register(
    "adv",
    "defenders.adv:AdversarialRegularization",
    "adversarial regularization, strength theta (Nasr et al., CCS 2018)",
    default=1.0,
)
DEFENDERS.register(
    "dp",
    "defenders.dp:PrivateSGD",
    "differentially private SGD, strength = noise multiplier (Abadi et al. 2016); with prune_dp.py",
    default=0.1,
    option_names=("dp_engine", "dp_lr", "max_grad_norm", "dp_noise"),
    keyed=True,
    stage="prune_dp",
)
