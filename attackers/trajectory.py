"""How the log odds of a record go from release to release, read by a small attention network; ours."""

from __future__ import annotations

import numpy as np
import torch

from attackers.calibration import best_threshold
from attackers.evidence import Evidence, Verdict
from attackers.learning import Learner, ShadowRecords, member_log_odds
from attackers.signals import Signals, log_odds
from base_model import TrainConfig
from transformer import TrajectoryAttack

# the likelihood of shadow records held out decides which epoch is kept
CONFIG = TrainConfig(epochs=100, batch_size=128, lr=3e-3, weight_decay=5e-4, early_stop=10)


def sequences(releases: list[Signals], labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The log odds of the records `rows` (N,) bool under one model in each of K releases, and the
    one-hot class; (n, K + C) float32.

    Log odds rather than their loss log(1 + exp(-phi)), whose digits next to 0, where most members
    are, a network would have to tell apart.
    """
    phi = [log_odds(one, labels)[rows] for one in releases]
    one_hot = labels[rows, None] == np.arange(releases[0].logits.shape[1])
    return np.column_stack([*phi, one_hot]).astype(np.float32)


def trajectory(evidence: Evidence, *, seed: int = 0, **how) -> dict[str, Verdict]:
    """The mean log odds of a member by three networks, each trained on the shadow records but for a
    third (`ShadowRecords.folds`), which decides when it stops.

    The threshold is the best for the records that each was not trained on. The sequence is the
    release under attack, then those of `Evidence.also` in their order; a network learns what each
    place means, and the class, as a loss that is low for one class is not for another. Its settings
    (`CONFIG`, `TrajectoryAttack`) are the same for all data sets.

    Raises:
        NotApplicable: there is but one release, or too few shadow records to learn from.
    """
    evidence.need_releases("trajectory")
    releases, labels = evidence.releases(), evidence.labels
    each = [
        sequences([one.shadows[index] for one in releases], labels, mask)
        for index, mask in enumerate(evidence.calibration_mask)
    ]
    records = ShadowRecords.of(evidence, each)
    x = torch.from_numpy(records.x)
    of_targets = torch.from_numpy(
        sequences([one.victim for one in releases], labels, evidence.target)
    )
    learner = Learner.of("trajectory", seed=seed, **how)
    held, scores = np.empty(len(x)), []
    for number, (_, held_out) in enumerate(records.folds(seed)):
        network = TrajectoryAttack(releases=len(releases), num_cls=x.shape[1] - len(releases))
        dev = np.isin(np.arange(len(x)), held_out)
        model = learner.fit(network, x, records.member, CONFIG, part=f"without_{number}", dev=dev)
        held[held_out] = member_log_odds(model, x[held_out])
        scores.append(member_log_odds(model, of_targets))
    threshold = best_threshold(held[records.member], held[~records.member])
    return {"trajectory": Verdict(np.mean(scores, axis=0), threshold)}
