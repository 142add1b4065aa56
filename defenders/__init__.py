"""Defences in fine-tuning. A defence changes one thing of the training loop, the loss of a batch or
the step, or what the trained network answers."""

from typing import Any

from core.registry import Registry

DEFENDERS = Registry("defence")
# default: the strength (`--defend_arg`) where none is given
# strengths: the least and the largest; None: any of 0 or more
# whole: whether only whole numbers are strengths
# option_names: options that only this defence reads
# keyed: it draws from streams of its own, and takes the `key` of those that follow from the seed
# stage: which fine-tunes with it
# new_weights: prune.py starts from new weights under the masks, not from the original's
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
    "wemem_rsw",
    "defenders.wemem:SlidingWindow",
    "windows that slide over records sorted by memorisation, strength = width, as a share of the "
    "mean class (WeMem, Shang et al., NDSS 2025)",
    default=0.4,
    strengths=(0, 1),
)
_AT_RISK: dict[str, Any] = dict(default=0.6, strengths=(0, 1))
DEFENDERS.register(
    "wemem_rmr",
    "defenders.wemem:RiskRegularization",
    "weight decay 0.1 on memorised records, strength = the memorisation from which on (WeMem)",
    **_AT_RISK,
)
DEFENDERS.register(
    "wemem_swmr",
    "defenders.wemem:WindowAndRegularization",
    "both: windows from the most memorised on, and wemem_rmr with its strength (WeMem)",
    **_AT_RISK,
)
DEFENDERS.register(
    "radd",
    "defenders.radd:RiskAwareDistillation",
    "memorised records rarely, and softly as the original has them, strength w_d of the "
    "distillation (RADD, Shen et al. 2026)",
    default=1.0,
)
DEFENDERS.register(
    "distill",
    "defenders.distill:DistillationForPrivacy",
    "the original's posteriors on mixed dev records, strength = its temperature (DMP, Shejwalkar & "
    "Houmansadr, AAAI 2021)",
    default=4.0,
    strengths=(0.01, 1000),
    new_weights=True,
)
DEFENDERS.register(
    "selena",
    "defenders.selena:SelfDistillation",
    "posteriors of sub-models that never saw the record, strength = their number (SELENA, Tang et "
    "al., USENIX Security 2022)",
    default=25.0,
    strengths=(2, 1000),
    whole=True,
    new_weights=True,
)
DEFENDERS.register(
    "hamp",
    "defenders.hamp:HAMP",
    "HAMP, strength gamma = the soft labels' share of the largest entropy (Chen & Pattabiraman, "
    "NDSS 2024)",
    default=0.95,
    strengths=(0, 1),
)
DEFENDERS.register(
    "memguard",
    "defenders.memguard:MemGuard",
    "MemGuard, strength = the distortion of posteriors that is expected at most (Jia et al., CCS "
    "2019)",
    default=1.0,
)
DEFENDERS.register(
    "round",
    "defenders.answers:Rounded",
    "posteriors rounded, strength = decimal digits (Shokri et al., S&P 2017)",
    default=2.0,
    strengths=(0, 15),
    whole=True,
)
DEFENDERS.register(
    "topk",
    "defenders.answers:TopK",
    "the largest posteriors alone, strength = how many (Shokri et al., S&P 2017)",
    default=3.0,
    strengths=(1, 1000),
    whole=True,
)
DEFENDERS.register(
    "labelonly",
    "defenders.answers:LabelOnly",
    "the class alone, without a strength (Shokri et al., S&P 2017)",
    default=0.0,
    strengths=(0, 0),
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
