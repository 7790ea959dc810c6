"""The two rules that are made of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from . import _core
from ._core import InvalidValueError
from ._rule import Rule, check_rule


class OptimiserChain(Rule):
    """Several rules in order, in one pass over memory.

    Each rule gets what the one before made of the gradient; what the last leaves is subtracted.
    Chains nest and can be indexed. An empty chain subtracts the gradient as it is, like
    `Descent(1)`.

    Args:
        *rules: rules and chains; `MixedPrecision` goes around a chain, not into it.

    Example:
        >>> import optimisers as opt
        >>> opt.OptimiserChain(opt.ClipGrad(1.0), opt.Descent(0.1))
        OptimiserChain(ClipGrad(delta=1.0), Descent(eta=0.1))
    """

    __slots__ = ("rules",)
    rules: tuple[Rule, ...]

    def __init__(self, *rules: Rule) -> None:
        for rule in rules:
            check_rule(rule, "OptimiserChain")
            if isinstance(rule, MixedPrecision):
                raise InvalidValueError(
                    "OptimiserChain: MixedPrecision must be outermost; write MixedPrecision(OptimiserChain(...))"
                )
        object.__setattr__(self, "rules", rules)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("rules are immutable; make a new chain")

    def _values(self) -> list[_core.RuleValue]:
        return [value for rule in self.rules for value in rule._values()]

    def _mapped(self, f: Callable[[Rule], Rule]) -> OptimiserChain:
        return OptimiserChain(*[rule._mapped(f) for rule in self.rules])

    def _with_values(self, values: Iterator[_core.RuleValue]) -> OptimiserChain:
        return OptimiserChain(*[rule._with_values(values) for rule in self.rules])

    def _stages(self) -> Iterator[Rule]:
        for rule in self.rules:
            yield from rule._stages()

    def __getitem__(self, index: int) -> Rule:
        return self.rules[index]

    def __len__(self) -> int:
        return len(self.rules)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __reduce__(self) -> tuple[Any, ...]:
        return OptimiserChain, self.rules

    def __eq__(self, other: object) -> bool:
        return self.rules == other.rules if isinstance(other, OptimiserChain) else NotImplemented

    def __hash__(self) -> int:
        return hash((OptimiserChain, self.rules))

    def __repr__(self) -> str:
        return f"OptimiserChain({', '.join(map(repr, self.rules))})"


class MixedPrecision(Rule):
    """A rule that works on a wider master copy of each leaf; the leaf receives the rounded result.

    Complex leaves get the complex partner of `dtype`, leaves already as wide get no copy. Where a
    leaf no longer equals its rounded master (it was edited from outside), the master takes the
    leaf first.

    Args:
        rule: any rule but another `MixedPrecision`.
        dtype: `"float32"` or `"float64"`.

    Example:
        >>> import optimisers as opt
        >>> opt.MixedPrecision(opt.Descent(0.1))
        MixedPrecision(Descent(eta=0.1), dtype='float32')
    """

    __slots__ = ("dtype", "rule")
    rule: Rule
    dtype: str

    def __init__(self, rule: Rule, dtype: Any = "float32") -> None:
        check_rule(rule, "MixedPrecision")
        if isinstance(rule, MixedPrecision):
            raise InvalidValueError("MixedPrecision: the rule inside is MixedPrecision already")
        name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype))
        name = name.removeprefix("torch.")
        if name not in ("float32", "float64"):
            raise InvalidValueError(f'MixedPrecision: dtype must be "float32" or "float64", got {dtype!r}')
        object.__setattr__(self, "rule", rule)
        object.__setattr__(self, "dtype", name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("rules are immutable; make a new one")

    def _values(self) -> list[_core.RuleValue]:
        return self.rule._values()

    def _master(self) -> str | None:
        return self.dtype

    def _mapped(self, f: Callable[[Rule], Rule]) -> MixedPrecision:
        return MixedPrecision(self.rule._mapped(f), self.dtype)

    def _with_values(self, values: Iterator[_core.RuleValue]) -> MixedPrecision:
        return MixedPrecision(self.rule._with_values(values), self.dtype)

    def _stages(self) -> Iterator[Rule]:
        return self.rule._stages()

    def __reduce__(self) -> tuple[Any, ...]:
        return MixedPrecision, (self.rule, self.dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MixedPrecision):
            return NotImplemented
        return (self.rule, self.dtype) == (other.rule, other.dtype)

    def __hash__(self) -> int:
        return hash((MixedPrecision, self.rule, self.dtype))

    def __repr__(self) -> str:
        return f"MixedPrecision({self.rule!r}, dtype={self.dtype!r})"
