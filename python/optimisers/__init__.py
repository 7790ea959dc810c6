"""Gradient-based optimisation rules for any tree of arrays, after Julia's Optimisers.jl."""

from typing import TYPE_CHECKING

from . import schedules
from ._adjust import adjust, adjust_, freeze, freeze_, thaw, thaw_
from ._callbacks import Adjusting, EarlyStop
from ._chains import MixedPrecision, OptimiserChain
from ._containers import isnumeric, maywrite, register_container, trainable
from ._core import (
    BusyError,
    DeviceArray,
    DeviceError,
    DeviceMemoryError,
    Duplicated,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    OptimisersError,
    update_,
)
from ._core import version as __version__
from ._destructure import Restructure, destructure
from ._devices import to_device
from ._extend import extend_
from ._files._inspect import Inspected, inspect
from ._files._loading import Loaded, load
from ._files._saving import save
from ._files._series import latest
from ._history import History, Step
from ._machine import Doctor, doctor, get_num_threads, set_num_threads
from ._markers import Marker
from ._minimize._run import minimize
from ._minimize._scipy import scipy_method
from ._others import from_optax, from_torch, to_optax, to_torch
from ._paths import KeyPath, getkeypath, haskeypath, setkeypath_
from ._rule import Rule
from ._rules import *  # noqa: F403  the classes of the registry
from ._rules import __all__ as _rule_names
from ._setup import setup
from ._state import Leaf, Marked, State, StateTree
from ._train import train_, train_step_
from ._update import apply_, flush, flush_, init, update, wait
from ._walks import lerp_, map_trainables, norm, reduce_trainables, select_trainables, trainables

__all__ = [
    "Adjusting",
    "BusyError",
    "DeviceArray",
    "DeviceError",
    "DeviceMemoryError",
    "Doctor",
    "Duplicated",
    "EarlyStop",
    "History",
    "Inspected",
    "InvalidTypeError",
    "InvalidValueError",
    "KeyPath",
    "Leaf",
    "Loaded",
    "Marked",
    "Marker",
    "MixedPrecision",
    "NonFiniteError",
    "OptimiserChain",
    "OptimisersError",
    "Restructure",
    "Rule",
    "State",
    "StateTree",
    "Step",
    "__version__",
    "adjust",
    "adjust_",
    "apply_",
    "destructure",
    "doctor",
    "extend_",
    "flush",
    "flush_",
    "freeze",
    "freeze_",
    "from_optax",
    "from_torch",
    "get_num_threads",
    "getkeypath",
    "haskeypath",
    "init",
    "inspect",
    "isnumeric",
    "latest",
    "lerp_",
    "load",
    "map_trainables",
    "maywrite",
    "minimize",
    "norm",
    "reduce_trainables",
    "register_container",
    "save",
    "schedules",
    "scipy_method",
    "select_trainables",
    "set_num_threads",
    "setkeypath_",
    "setup",
    "thaw",
    "thaw_",
    "to_device",
    "to_optax",
    "to_torch",
    "train_",
    "train_step_",
    "trainable",
    "trainables",
    "update",
    "update_",
    "wait",
]
__all__ += _rule_names

if not TYPE_CHECKING:  # a type checker is to see which names there are

    def __getattr__(name):
        from ._names import NAMES, attribute_message

        raise AttributeError(attribute_message(__name__, name, NAMES, __all__))


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__


del TYPE_CHECKING
