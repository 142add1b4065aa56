"""CompLeak-MR (Li et al., "CompLeak: Deep Learning Model Compression Exacerbates Privacy Leakage",
USENIX Security 2026, arXiv 2507.16872): what CompLeak-SR says of each compressed release, together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from attackers.calibration import best_threshold
from attackers.compleak import fit_forest, pooled_records, target_features
from attackers.evidence import Evidence, Verdict, always_fit
from attackers.learning import Learner, ShadowRecords, member_log_odds
from attackers.signals import cross_entropy
from models.perceptron import TwoBranches
from training.config import CosineConfig

CONFIG = CosineConfig(epochs=100, batch_size=128, optimizer="sgd", lr=1e-2, weight_decay=5e-4)


def inputs(shares: list[np.ndarray], losses: list[np.ndarray]) -> np.ndarray:
    """What the network sees, (n, 3m) float32: of each release the forest's probabilities of a
    non-member and a member, then each one's cross-entropy; from m arrays (n,) of either kind."""
    probabilities = [each for share in shares for each in (1 - share, share)]
    return np.stack([*probabilities, *losses], axis=1).astype(np.float32)


def stacked_inputs(
    evidence: Evidence, seed: int, fit_or_load: Callable
) -> tuple[ShadowRecords, np.ndarray]:
    """The `inputs` of the shadow models' own records, by forests that were fitted without them, and
    those of the targets, by forests of all."""
    this, reference, *others = evidence.releases()
    masks, target = evidence.calibration_mask, evidence.target
    shares, losses, target_shares, target_losses = [], [], [], []
    for one in (this, *others):
        records = pooled_records(evidence, one.shadows, reference.shadows)
        fit = fit_forest(records, seed, fit_or_load)
        shares.append(fit.held)
        target_shares.append(fit.score(target_features(evidence, one.victim, reference.victim)))
        of_shadows = [cross_entropy(shadow, evidence.labels) for shadow in one.shadows]
        losses.append(np.concatenate([loss[mask] for loss, mask in zip(of_shadows, masks)]))
        target_losses.append(cross_entropy(one.victim, evidence.labels)[target])
    pooled = ShadowRecords.of(evidence, [inputs(shares, losses)])
    return pooled, inputs(target_shares, target_losses)


def compleak_mr(
    evidence: Evidence, *, seed: int = 0, fit_or_load: Callable = always_fit, **how
) -> dict[str, Verdict]:
    """A network on the probabilities that CompLeak-SR's forests give a record in each compressed
    release beside the reference, and on its cross-entropies there.

    The reference, which the authors have as the original, is the first of `Evidence.also`; the m
    compressed releases are all others, the one under attack included: with one other release m = 1.
    Network and training are those of the authors' code, as are the forests. Where this departs from
    it:

    - the network learns from probabilities by forests that were fitted without the record
      (`ShadowRecords.folds`), not by those that had learnt it;
    - each shadow model is queried in each of its releases, not in the last one every time;
    - the last epoch is kept, not the one that is best on the victim's truth;
    - the threshold is the best for shadow records that were held out from the network too, not a
      probability of one half;
    - weights start as all networks here do (Xavier-normal).

    The paper has a variant without the original, of which the code says nothing; it is not made.

    Raises:
        NotApplicable: there is but one release, or too few shadow records to learn from.
    """
    evidence.need_releases("compleak_mr")
    records, of_targets = stacked_inputs(evidence, seed, fit_or_load)
    learner = Learner.of("compleak_mr", seed=seed, fit_or_load=fit_or_load, **how)
    x, releases = torch.from_numpy(records.x), len(evidence.also)

    def fit(rows, part: str = ""):
        network = TwoBranches(releases=releases)
        return learner.fit(network, x[rows], records.member[rows], CONFIG, part=part)

    held = np.empty(len(x))
    for number, (learnt, held_out) in enumerate(records.folds(seed)):
        held[held_out] = member_log_odds(fit(learnt, f"without_{number}"), x[held_out])
    threshold = best_threshold(held[records.member], held[~records.member])
    scores = member_log_odds(fit(slice(None)), torch.from_numpy(of_targets))
    return {"compleak_mr": Verdict(scores, threshold)}
