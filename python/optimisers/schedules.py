"""Schedules: functions from the number of steps done (0 before the first) to a hyperparameter, as plain values.

Hand them to `Adjusting` in `train_`, or write `adjust_(state, schedule(step))` in a loop of your own. Shapes (`linear`,
`cosine`, `polynomial`, `exponential`, `inverse`, `stepwise`, `piecewise`) are put together by `warmup`, `restarts` and
`join`; `warmup_cosine`, `wsd` and `one_cycle` are usual ones in one piece. Each is what torch and optax compute under
that name.
"""

from typing import TYPE_CHECKING

from ._plateau import reduce_on_plateau
from ._schedule import Schedule
from ._schedules import join, one_cycle, restarts, warmup, warmup_cosine, wsd
from ._shapes import constant, cosine, exponential, inverse, linear, piecewise, polynomial, stepwise

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "inverse",
    "join",
    "linear",
    "one_cycle",
    "piecewise",
    "polynomial",
    "reduce_on_plateau",
    "restarts",
    "stepwise",
    "warmup",
    "warmup_cosine",
    "wsd",
]

if not TYPE_CHECKING:  # a type checker is to see which names there are

    def __getattr__(name):
        from ._names import SCHEDULES, attribute_message

        raise AttributeError(attribute_message(__name__, name, SCHEDULES, __all__))


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__


del TYPE_CHECKING
