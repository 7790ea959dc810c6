"""The base class of rules, and that of the built-in ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

from . import _core
from ._core import InvalidTypeError
from ._names import argument_hint, foreign_rule


class Field(NamedTuple):
    """A hyperparameter of a rule."""

    name: str
    kind: str  # double, pair, int, bool or word; any in a rule of one's own
    default: Any  # None: the argument is required
    range: str  # the name of its range: nonnegative, unit, ...
    bounds: str  # the range as text: [0, inf)
    doc: str
    structural: bool  # decides which slots exist, so that `adjust` refuses it
    words: tuple[str, ...] = ()  # the values of a word


TYPES = {
    "double": "float",
    "pair": "tuple[float, float]",
    "int": "int",
    "bool": "bool",
}


def quoted(word: str) -> str:
    return f'"{word}"'


def type_of(field: Field) -> str:
    """The annotation of a hyperparameter."""
    return f"Literal[{', '.join(map(quoted, field.words))}]" if field.words else TYPES[field.kind]


class Slot(NamedTuple):
    """A per-element state array of a rule."""

    name: str
    real: bool  # real-valued for a complex leaf


class Rule:
    """Base class of all rules.

    A rule is a small value: hyperparameters, no state. Rules compare by value, are hashable and
    can be pickled. `RULES` lists the built-in ones.

    A rule of one's own is a subclass, best a frozen dataclass, whose fields are hyperparameters
    that `adjust_` knows; a field that is itself a rule is reached too. It defines `apply`, and
    `init` if it has state, and stands anywhere in a chain. Leaves under such a rule take more than
    one sweep over memory, and extra memory while they are updated.

    Example:
        >>> from dataclasses import dataclass
        >>> import numpy as np, optimisers as opt
        >>> @dataclass(frozen=True)
        ... class DecayDescent(opt.Rule):
        ...     eta: float = 0.1
        ...
        ...     def init(self, x):
        ...         return 1
        ...
        ...     def apply(self, state, x, dx, *higher):
        ...         return state + 1, self.eta / state**0.5 * dx
        >>> x = np.array([1.0, 2.0])
        >>> state = opt.setup(opt.OptimiserChain(opt.ClipGrad(1.0), DecayDescent()), x)
        >>> state, x = opt.update_(state, x, np.array([5.0, 0.5]))
        >>> x, state.state[1]
        (array([0.9 , 1.95]), 2)
    """

    __slots__ = ()
    fields: ClassVar[tuple[Field, ...]] = ()
    slots: ClassVar[tuple[Slot, ...]] = ()
    summary: ClassVar[str] = ""
    update: ClassVar[str] = ""
    notes: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    def init(self, x: Any) -> Any:
        """Return the state for one array: anything that `copy.deepcopy` copies.

        Args:
            x: the array, read-only; the widened one under `MixedPrecision`.
        """
        return None

    def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> tuple[Any, Any]:
        """Return the new state, and what the next stage gets in place of `dx`.

        Args:
            state: a copy of what `init` or the last call returned.
            x: the array, read-only.
            dx: the gradient as the stage before left it, of x's dtype; free to be overwritten.
            *higher: further gradients that `update_` was given, `None` where there is none.

        Returns:
            `(state, dx)`: dx is an array of x's shape; the last stage's is subtracted. `None` stops
            the chain for this leaf in this call.
        """
        raise InvalidTypeError(f"{type(self).__name__} has no method apply; a rule of one's own must define it")

    def _values(self) -> list[_core.RuleValue]:
        """The built-in rules it comes down to, in order."""
        return []

    def _master(self) -> str | None:
        return None

    def _programs(self) -> list[_core.Program]:
        """The built-in stages before each user-defined one, and those after the last."""
        parts: list[list[_core.RuleValue]] = [[]]
        for stage in self._stages():
            if isinstance(stage, BuiltinRule):
                parts[-1] += stage._values()
            else:
                parts.append([])
        return [*(_core.Program(part, None) for part in parts[:-1]), _core.Program(parts[-1], self._master())]

    def _user_stages(self) -> list[Rule]:
        return [stage for stage in self._stages() if not isinstance(stage, BuiltinRule)]

    def _with_values(self, values: Iterator[_core.RuleValue]) -> Rule:
        """A rule of the same structure with the built-in stages' hyperparameters from elsewhere."""
        return self

    def _mapped(self, f: Callable[[Rule], Rule]) -> Rule:
        """A rule of the same structure with f applied to each stage."""
        return f(self)

    def _stages(self) -> Iterator[Rule]:
        """The built-in and user-defined rules it is a chain of, in order."""
        yield self


class BuiltinRule(Rule):
    """A rule of the registry; the classes are made in `_rules`."""

    __slots__ = ("_value",)
    _value: _core.RuleValue
    _core_names: ClassVar[tuple[str, ...]] = ()
    _matrix: ClassVar[bool] = False  # it works on whole matrices
    _sums: ClassVar[tuple[str, ...]] = ()  # what it adds up over a leaf, or over all, before it steps

    def __new__(cls, *args: Any, **kwargs: Any) -> BuiltinRule:
        if kwargs:
            cls._refuse_unknown(kwargs)
        return object.__new__(cls)

    @classmethod
    def _refuse_unknown(cls, arguments: dict[str, Any]) -> None:
        names = [field.name for field in cls.fields]
        known = {*names, "centered"} if "centred" in names else {*names}
        unknown = [name for name in arguments if name not in known]
        if unknown:
            hints = [f"{name}: {hint}" for name in unknown if (hint := argument_hint(name))]
            text = "".join(f"; {hint}" for hint in hints)
            raise InvalidTypeError(
                f"{cls.__name__} has no argument {', '.join(map(repr, unknown))}; its arguments are "
                f"{', '.join(names)}{text}"
            )

    def _set(self, *values: Any) -> None:
        cls = type(self)
        try:
            native = _core.RuleValue(cls.__name__, dict(zip(cls._core_names, values, strict=True)))
        except InvalidTypeError as error:
            if (
                not values
                or isinstance(values[0], str)
                or not (hasattr(values[0], "__iter__") or callable(values[0]))
                or cls.fields[0].kind == "pair"
            ):
                raise
            raise InvalidTypeError(
                f"{error}; rules hold hyperparameters only: for a model's parameters write setup({cls.__name__}(...), "
                "model), and for a schedule see adjust_ and Adjusting"
            ) from None
        self._take(native)

    def _take(self, native: _core.RuleValue) -> None:
        object.__setattr__(self, "_value", native)
        for field, value in zip(self.fields, native.values(), strict=True):
            object.__setattr__(self, field.name, value)

    def _values(self) -> list[_core.RuleValue]:
        return [self._value]

    def _with_values(self, values: Iterator[_core.RuleValue]) -> Rule:
        rule = type(self).__new__(type(self))
        rule._take(next(values))
        return rule

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"rules are immutable; use adjust(rule, {name}=...) for a changed one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("rules are immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._value.values()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._value.values() == other._value.values()

    def __hash__(self) -> int:
        return hash((type(self), self._value.values()))

    def __repr__(self) -> str:
        values = zip(self.fields, self._value.values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{f.name}={v!r}' for f, v in values)})"


def check_rule(rule: object, call: str) -> None:
    if isinstance(rule, Rule):
        return
    if isinstance(rule, type) and issubclass(rule, Rule):
        raise InvalidTypeError(f"{call}: expected a rule, got the class {rule.__name__}; write {rule.__name__}()")
    if isinstance(rule, list | tuple) and rule and all(isinstance(stage, Rule) for stage in rule):
        stages = ", ".join(f"{type(stage).__name__}(...)" for stage in rule)
        raise InvalidTypeError(
            f"{call}: expected a rule, got a {type(rule).__name__} of rules; to apply them one after the other write "
            f"OptimiserChain({stages})"
        )
    foreign = foreign_rule(rule)
    raise InvalidTypeError(f"{call}: expected a rule such as Adam(), got {foreign or type(rule).__name__}")
