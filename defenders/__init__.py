"""Defences in fine-tuning. A defence changes one thing of the training loop: here, the loss of a batch."""
from registry import Registry

DEFENDERS = Registry("defence")
# default: the strength (`--defend_arg`) where none is given
DEFENDERS.register("", "defenders.basic:Basic", "none beyond early stopping and weight decay", default=None)
DEFENDERS.register("ppb", "defenders.ppb:PosteriorBalancing",
                   "pair-based posterior balancing, strength lambda (Yuan & Zhang 2022)", default=4.0)
DEFENDERS.register("adv", "defenders.adv:AdversarialRegularization",
                   "adversarial regularization, strength theta (Nasr et al., CCS 2018)", default=1.0)
