"""Membership inference attacks.

An attack is a function `attack(shadows, target, *, device, seed, watch, resume) -> {name: Verdict}`:

    shadows   list of `Shadow`: the signals of each shadow model on its own members and non-members
    target    `Signals` of the victim on the target records; the attack never sees who of them is a member
    device    where an attack network is trained
    seed      of all its randomness
    watch     called with (epochs, label) before a training, see `console.epoch_bar`
    resume    for `BaseModel.train`, which keeps its state there
"""
from registry import Registry

ATTACKS = Registry("attack")
# reports: the names of its verdicts, where they are not its own
ATTACKS.register("samia", "attackers.neural:samia",
                 "self-attention on posterior, sensitivity and class (Yuan & Zhang 2022)")
ATTACKS.register("threshold", "attackers.threshold:threshold",
                 "one a class on the true class's posterior, the entropy and the modified entropy (Song & Mittal\n"
                 "                 2021), one for all on the largest posterior (Salem et al. 2019)",
                 reports=("conf", "xent", "mentr", "top1_conf"))
ATTACKS.register("nn", "attackers.neural:nn", "perceptron on the posterior (Shokri et al. 2017)")
ATTACKS.register("nn_top3", "attackers.neural:nn_top3", "perceptron on the three largest (Salem et al. 2019)")
ATTACKS.register("nn_cls", "attackers.neural:nn_cls", "perceptron on posterior and class (Nasr et al. 2018)")
