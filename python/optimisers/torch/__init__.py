"""This library as `torch.optim` optimisers: for scripts, trainers and schedulers that expect one.

`optimisers.torch.AdamW` and the other classes have torch's names and defaults where `torch.optim` has the optimiser;
`Optimizer(params, rule)` takes any rule or chain. Importing this imports torch; `optimisers` itself does not.
"""

from ._classes import *  # noqa: F403  the classes by name
from ._classes import __all__ as _class_names
from ._groups import decay_groups, layerwise_lr
from ._optimizer import Optimizer

__all__ = ["Optimizer", "decay_groups", "layerwise_lr"]
__all__ += [name for name in _class_names if name != "CLASSES"]
