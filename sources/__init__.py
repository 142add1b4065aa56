"""Where data sets come from: a registry of names, and the readers of their files.

This room lies beneath `datasets.py` and above `core/`. A reader is a function
(folder) -> x (N, *shape) uint8, y (N,) integers from 0; `datasets.load` does the rest. Whoever adds
a data set adds one reader and one line here.
"""

from typing import Any

from core.registry import Registry

DATASETS = Registry("data set")
# num_cls, shape: of all records; a download that would not fit is not begun
# mean, std: of each channel, for pixels in 0..1; tables have none

_CIFAR: dict[str, Any] = dict(  # for both: Yuan & Zhang 2022
    shape=(3, 32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)
)
DATASETS.register(
    "cifar10",
    "sources.torchvision_sets:cifar10",
    "60000 photographs (Krizhevsky 2009; torchvision)",
    num_cls=10,
    **_CIFAR,
)
DATASETS.register(
    "cifar100",
    "sources.torchvision_sets:cifar100",
    "60000 photographs (Krizhevsky 2009; torchvision)",
    num_cls=100,
    **_CIFAR,
)
DATASETS.register(
    "svhn",
    "sources.torchvision_sets:svhn",
    "99289 house numbers, train and test (Netzer et al. 2011; torchvision)",
    num_cls=10,
    shape=(3, 32, 32),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
DATASETS.register(
    "mnist",
    "sources.torchvision_sets:mnist",
    "70000 handwritten digits (LeCun et al. 1998; torchvision)",
    num_cls=10,
    shape=(1, 28, 28),
    mean=(0.1307,),
    std=(0.3081,),
)
DATASETS.register(
    "chmnist",
    "sources.archived_sets:chmnist",
    "5000 tiles of colorectal tissue (Kather et al. 2016; Zenodo 53169)",
    num_cls=8,
    shape=(3, 32, 32),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
DATASETS.register(
    "location",
    "sources.archived_sets:location",
    "5010 users' places (Shokri et al. 2017; GitHub privacytrustlab)",
    num_cls=30,
    shape=(446,),
)
DATASETS.register(
    "texas100",
    "sources.archived_sets:texas100",
    "67330 hospital stays (Shokri et al. 2017; GitHub privacytrustlab)",
    num_cls=100,
    shape=(6169,),
)
DATASETS.register(
    "purchase100",
    "sources.archived_sets:purchase100",
    "197324 shoppers (Shokri et al. 2017; GitHub privacytrustlab)",
    num_cls=100,
    shape=(600,),
)
DATASETS.register(
    "digits",
    "sources.bundled_sets:digits",
    "1797 digits of 8x8 pixels (Alpaydin & Kaynak 1998; in scikit-learn)",
    num_cls=10,
    shape=(1, 8, 8),
    mean=(0.5,),
    std=(0.5,),
)
