"""Arrays of an audit, drawn: members are easier for the model by `leak` in the logit of their class."""

import numpy as np

from auditing.result import AttackResult

CLASSES = 4


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def answers(*, n=240, population=60, shadows=8, leak=2.0, original=None, seed=0):
    """What `audit.py answers` reads; with `original`, the leak of the original too."""
    draw = np.random.default_rng(seed)
    target = np.arange(n + population) < n
    labels = draw.integers(CLASSES, size=len(target))
    ease = draw.normal(1, 2, len(target))

    def logits(member, leak):
        z = draw.normal(size=(len(target), CLASSES))
        z[np.arange(len(z)), labels] += ease + leak * member
        return z

    member = (draw.random(len(target)) < 0.5) & target
    turn = draw.permuted(np.tile(np.arange(shadows) % 2 == 0, (len(target), 1)), axis=1).T
    shadow_member = turn & target
    found = {
        "labels": labels,
        "member": member,
        "target": target,
        "victim": softmax(logits(member, leak)),
        "shadows": softmax(np.stack([logits(one, leak) for one in shadow_member])),
        "shadow_member": shadow_member,
    }
    if original is not None:
        found["original"] = softmax(logits(member, original))
        found["original_shadows"] = softmax(
            np.stack([logits(one, original) for one in shadow_member])
        )
    return found


def result_of(scores, member, *, name="lira", release="released", threshold=None):
    """What an attack with these scores (n,) finds, all targets of one class."""
    from attackers import Verdict, metrics

    verdict = Verdict(scores, np.median(scores) if threshold is None else threshold)
    measures = metrics.measures(verdict, member, np.zeros(len(member), int), num_cls=2)
    named = metrics.named_records(scores, member, limit=0.01)
    return AttackResult(name, "", release, measures, scores, named, verdict.member)
