"""Gradient-based optimisation rules for any tree of arrays, after Julia's Optimisers.jl."""

from ._core import (
    BusyError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    OptimisersError,
    update_,
)
from ._core import version as __version__
from ._destructure import Restructure, destructure, trainables
from ._machine import Doctor, doctor, get_num_threads, set_num_threads
from ._paths import KeyPath
from ._rule import MixedPrecision, OptimiserChain, Rule
from ._rules import *  # noqa: F403  the classes of the registry
from ._rules import __all__ as _rule_names
from ._setup import setup
from ._state import Leaf, State, StateTree
from ._update import adjust, adjust_, apply_, freeze, freeze_, init, thaw, thaw_, update

__all__ = [
    "BusyError",
    "Doctor",
    "InvalidTypeError",
    "InvalidValueError",
    "KeyPath",
    "Leaf",
    "MixedPrecision",
    "NonFiniteError",
    "OptimiserChain",
    "OptimisersError",
    "Restructure",
    "Rule",
    "State",
    "StateTree",
    "__version__",
    "adjust",
    "adjust_",
    "apply_",
    "destructure",
    "doctor",
    "freeze",
    "freeze_",
    "get_num_threads",
    "init",
    "set_num_threads",
    "setup",
    "thaw",
    "thaw_",
    "trainables",
    "update",
    "update_",
]
__all__ += _rule_names
