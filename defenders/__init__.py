"""Defences in fine-tuning. A defence changes one thing of the training loop: the loss of a batch,
or the step."""

from typing import Any

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
    "relaxloss",
    "defenders.relaxloss:RelaxLoss",
    "RelaxLoss, strength alpha = the loss that is held (Chen, Yu & Fritz, ICLR 2022)",
    default=1.0,
)
DEFENDERS.register(
    "labelsmooth",
    "defenders.criteria:LabelSmoothing",
    "label smoothing, strength = the mass that is spread (Szegedy et al., CVPR 2016)",
    default=0.1,
    strengths=(0, 1),
)
DEFENDERS.register(
    "confpenalty",
    "defenders.criteria:ConfidencePenalty",
    "confidence penalty, strength beta of the entropy (Pereyra et al. 2017)",
    default=0.1,
)
_CCL: dict[str, Any] = dict(default=0.5, strengths=(0, 1))
DEFENDERS.register(
    "ccel",
    "defenders.criteria:ConvexConcaveExponential",
    "convex-concave exponential loss, strength alpha of cross-entropy (Liu et al., ICML 2024)",
    **_CCL,
)
DEFENDERS.register(
    "ccql",
    "defenders.criteria:ConvexConcaveQuadratic",
    "convex-concave quadratic loss, strength alpha of cross-entropy (Liu et al., ICML 2024)",
    **_CCL,
)
DEFENDERS.register(
    "mixup_mmd",
    "defenders.mixup_mmd:MixupMMD",
    "mixup, and MMD of strength lambda between posteriors (Li, Li & Ribeiro, CODASPY 2021)",
    default=3.0,
)
DEFENDERS.register(
    "past",
    "defenders.past:SparsityTuning",
    "privacy-aware sparsity tuning, strength of an L1 penalty (Hu, Zhang & Wei 2024)",
    default=1e-3,
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
