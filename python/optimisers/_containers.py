"""What counts as a container, as trained and as writable; and how users say so for classes of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any, TypeVar, overload

from . import _core
from ._core import InvalidTypeError
from ._protocols import functions_for, is_node_by_fields, trained_fields

T = TypeVar("T")
C = TypeVar("C", bound=type)
ChildrenOf = Callable[[T], dict[Any, Any]]

_containers: dict[type, tuple[Callable[[Any], dict[Any, Any]], Callable[[Any, dict[Any, Any]], Any]]] = {}
_trainables: dict[type, Callable[[Any], dict[Any, Any]]] = {}


def _nearest(registry: Mapping[type, Any], cls: type) -> Any:
    return next((registry[base] for base in cls.__mro__ if base in registry), None)


def _look_up(x: object) -> tuple[Any, Any, Any, str]:
    """What there is for the class of x: registered, for it or its nearest base, or known; asked once a class."""
    cls = type(x)
    trained = _nearest(_trainables, cls)
    if registered := _nearest(_containers, cls):
        return *registered, trained, "registered object"
    children, rebuild, kind = functions_for(x) or (None, None, "value")
    if trained is None and children is None and is_node_by_fields(x):
        trained = trained_fields
    return children, rebuild, trained, kind


_core.set_class_registry(_look_up)


class _Registry:
    """Ends with this module: later than functions that run at exit, which may still update."""

    def __init__(self) -> None:
        self._forget, self._look_up = _core.forget_class_registry, _look_up

    def __del__(self) -> None:
        self._forget(self._look_up)


_registry = _Registry()


def _check_registered(cls: object, call: str, refused: tuple[type, ...], *functions: object) -> None:
    if not isinstance(cls, type):
        raise InvalidTypeError(f"{call}: expected a class, got {type(cls).__name__}")
    if cls in refused:
        raise InvalidTypeError(f"{call}: {cls.__name__} cannot be registered; register a class of your own")
    for function in functions:
        if not callable(function):
            raise InvalidTypeError(f"{call}: expected a function, got {type(function).__name__}")


def register_container(
    cls: type[T], children: Callable[[T], dict[Any, Any]], rebuild: Callable[[T, dict[Any, Any]], T]
) -> type[T]:
    """Make a class a container, so that models can be built of its objects.

    Holds for subclasses too, unless they are registered themselves, and takes precedence over what
    the class is otherwise (a dataclass, a kind of dict, a pytree of JAX). States set up before are not affected.

    Args:
        cls: the class.
        children: `children(x)` returns a dict from key to child: the objects themselves and no copies, since
            `update_` writes to the arrays among them. The keys are those of paths, gradient trees and state trees,
            in this order.
        rebuild: `rebuild(x, children)` returns a new object like `x` with these children.

    Returns:
        The class.

    Raises:
        TypeError: `cls` is no class of one's own, or one of the functions is none.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> class Scale:
        ...     def __init__(self, factor):
        ...         self.factor = factor
        >>> cls = opt.register_container(Scale, lambda s: {"factor": s.factor}, lambda s, c: Scale(**c))
        >>> opt.setup(opt.Adam(), Scale(np.ones(2))).factor.path
        KeyPath('factor')
    """
    refused = (object, type, dict, list, tuple, str, bytes, int, float, complex, bool)
    _check_registered(cls, "register_container", refused, children, rebuild)
    _containers[cls] = (children, rebuild)
    _core.set_class_registry(_look_up)
    return cls


class Trainable:
    """The function `trainable`, and its overrides by class."""

    def __init__(self, function: Callable[[object], dict[Any, Any]]) -> None:
        self._function = function
        update_wrapper(self, function)

    def __call__(self, x: object) -> dict[Any, Any]:
        return self._function(x)

    @overload
    def register(self, cls: type[T]) -> Callable[[ChildrenOf[T]], ChildrenOf[T]]: ...
    @overload
    def register(self, cls: type[T], function: ChildrenOf[T]) -> ChildrenOf[T]: ...
    def register(self, cls: type[Any], function: Any = None) -> Any:
        """Override `trainable` for a class and its subclasses; a decorator, or called with the function."""
        if function is None:
            return lambda f: self.register(cls, f)
        _check_registered(cls, "trainable.register", (object, type), function)
        _trainables[cls] = function
        _core.set_class_registry(_look_up)
        return function


@Trainable
def trainable(x: object) -> dict[Any, Any]:
    """Return the children of a node that are trained, or lead to what is trained.

    All children count, except dataclass fields with `field(metadata={"trainable": False})`.
    `@trainable.register(Layer)` overrides this for a class and its subclasses: the function gets
    the object and returns a dict with a subset of the children, of which the keys count. It is
    asked once, when a model is set up, destructured or walked over. For a class that is no container an
    empty dict says that nothing in it is trained.

    Args:
        x: any part of a model.

    Returns:
        A dict from field, key or position to child; empty for what is no container.

    Raises:
        ValueError: an override names a child that the object lacks.
        TypeError: an override returns no dict, or names children of what is no container.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Affine:
        ...     scale: np.ndarray
        ...     shift: np.ndarray
        >>> @opt.trainable.register(Affine)
        ... def _(x):
        ...     return {"scale": x.scale}
        >>> opt.trainables(Affine(np.ones(2), np.zeros(2)))
        [array([1., 1.])]
    """
    return {key: child for key, child, trained in _core.children(x, True) or () if trained}


def isnumeric(x: object) -> bool:
    """Say whether `x` would be trained as a leaf: an array of real or complex floating point.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> [opt.isnumeric(x) for x in (np.ones(2), np.arange(2), 1.0, "w")]
        [True, False, False, False]
    """
    return _core.is_numeric(x)


def maywrite(x: object) -> bool:
    """Say whether `update_` may write to the array `x`; `update` needs no such leave.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> opt.maywrite(np.ones(2)), opt.maywrite(np.broadcast_to(1.0, 3))
        (True, False)
    """
    return _core.may_write(x)
