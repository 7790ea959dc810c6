"""Bound: the native state of a torch optimiser's param groups, made, filled, exported and kept in step with them."""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import torch

import optimisers as opt

from .._core import InvalidTypeError, InvalidValueError
from .._fields import structure
from .._rule import Rule
from ._entries import CLOCK, PYTHON, Entries, States, StepCounts, check_given, clocks_of, entries_of, put
from ._groups import refuse_sparse
from ._local import (
    Whole,
    check_placements,
    gradient_of,
    is_shapeless,
    looks_at_whole,
    needs_explicit,
    norm_over_ranks,
    sharded,
)
from ._rules import clock_after, in_front

_NUMBERS = frozenset((float, int, bool, type(None)))


def numbers(group: Mapping[str, Any], names: tuple[str, ...]) -> list[Any]:
    """These entries of a group, tensors and NumPy's scalars as numbers, in pairs too."""
    return [v if type(v) in _NUMBERS else number(v) for v in [group[name] for name in names]]


def number(value: Any) -> Any:
    if type(value) is tuple:
        return tuple(map(number, value))
    return value.item() if hasattr(value, "item") else value


class Bound(torch.optim.Optimizer):
    """A torch optimiser with a native state for its groups. What a group means is for its subclasses to say."""

    _counts_steps = True  # whether the state has `step`
    _native: Any = None
    _states: Any
    _norm: Any = None
    _lists_empty = True  # parameters without state, so that whoever finds none makes no step to have one
    _gathers = False  # parameters whose rules look at whole arrays, from the processes that share them
    _whole = Whole()

    def _rule_of(self, group: Mapping[str, Any]) -> Rule:
        """The rule that a group's entries make, without the clipping."""
        raise TypeError(f"{type(self).__name__} does not say what its groups mean")

    def _reads(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The entries on which `_rule_of` depends."""
        return tuple(self.defaults)

    def _prepare(self, i: int, group: Mapping[str, Any]) -> None:
        """What is to be done for a group before a step."""

    def _derived(self, parameter: torch.Tensor) -> dict[str, Any]:
        """What torch's state has and this one's follows from."""
        return {}

    def _initial(self, parameter: torch.Tensor, group: Mapping[str, Any], entries: Entries) -> None:
        """Start the state of a parameter where torch's starts, if the rule's starts elsewhere."""

    def _front(self, group: Mapping[str, Any]) -> Rule | None:
        """The clipping in front of a group's rule; over several processes a factor, set before each step."""
        if group.get("clip_grad_norm") is None:
            return None
        if self._is_distributed:
            return opt.Descent(1.0)
        try:
            return opt.ClipNorm(group["clip_grad_norm"], scope="global")
        except (ValueError, TypeError) as error:
            words = str(error).replace("ClipNorm: omega", f"{type(self).__name__}: clip_grad_norm")
            raise type(error)(words) from None

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        plain = {
            k: v if torch.is_tensor(v) and v.numel() != 1 else number(v) for k, v in group.items() if k != "params"
        }
        return in_front(self._front(plain), self._rule_of(plain))

    def _bind(
        self, groups: list[dict[str, Any]], given: Mapping[Any, Mapping[str, Any]], *, adds_slots: bool = False
    ) -> None:
        """Make the native state of these groups, filled with what is given; all of it, or nothing.

        With `adds_slots` what is given was of other options, and slots it lacks start anew.
        """
        lists = [list(group["params"]) for group in groups]
        before = getattr(self, "_is_distributed", False), self._whole
        self._is_distributed = any(map(sharded, chain.from_iterable(lists)))
        try:
            rules = [self._rule(group) for group in groups]
            self._whole = self._gathered(rules, lists)
            native = self._set_up(rules, lists, groups)
            core = native._core
            counts = StepCounts(len(core.rules))
            core.count_into(counts.array)
            states = States(self._fill)
            leaves: dict[Any, int] = {}
            for i, (group, rule) in enumerate(zip(groups, rules, strict=True)):
                for j, parameter in enumerate(group["params"]):
                    leaf = native[i][j]
                    if leaf is None:
                        continue
                    leaves[parameter] = n = leaf._index
                    count = counts.tensor[n] if self._counts_steps else None
                    entries = entries_of(core, n, rule, parameter, count, parameter in self._whole)
                    check_given(entries, given.get(parameter, {}), self._where(groups, i, j), adds_slots)
                    self._initial(parameter, group, entries)
                    if entries or self._lists_empty:
                        states[parameter] = entries
        except BaseException:
            self._is_distributed, self._whole = before
            raise
        self._native, self._counts, self._states, self._leaves = native, counts, states, leaves
        self._norm = None
        self._bound = [tuple(params) for params in lists]
        self._explicit = needs_explicit(chain.from_iterable(lists))
        self._shapeless = frozenset(filter(is_shapeless, chain.from_iterable(lists)))
        self._take(groups, rules, given)

    def _gathered(self, rules: list[Rule], lists: list[list[Any]]) -> Whole:
        together = [(rule, params) for rule, params in zip(rules, lists, strict=True) if looks_at_whole(rule)]
        if not self._gathers:
            for rule, params in together:
                check_placements(rule, params)
            return Whole()
        return Whole(filter(sharded, chain.from_iterable(params for _, params in together)))

    def _set_up(self, rules: list[Rule], lists: list[list[Any]], groups: list[dict[str, Any]]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return opt.setup(rules, [list(map(self._whole.native, params)) for params in lists])
            except (InvalidValueError, InvalidTypeError) as error:
                raise self._in_words(error, groups) from None

    def _refill(self, groups: list[dict[str, Any]], given: Mapping[Any, Mapping[str, Any]]) -> bool:
        """Put what is given into the views there are, where it has all of them and the rules keep their structure."""
        rules = [self._rule(group) for group in groups]
        same = all(structure(a) == structure(b) for a, b in zip(rules, self._rules, strict=True))
        if not same or not self._is_bound_to([group["params"] for group in groups]):
            return False
        if any(not given.get(parameter) for parameter in self._leaves):
            return False
        for i, group in enumerate(groups):
            for j, parameter in enumerate(group["params"]):
                if parameter in self._leaves:
                    check_given(self._entries(parameter), given[parameter], self._where(groups, i, j))
        for i, rule in enumerate(rules):
            self._adjust(i, rule)
        self._take(groups, rules, given)
        return True

    def _take(self, groups: list[dict[str, Any]], rules: list[Rule], given: Mapping[Any, Mapping[str, Any]]) -> None:
        """Note what the groups say, and put what is given into the views."""
        self._rules = rules
        self._names = [("clip_grad_norm", *self._reads(group)) for group in groups]
        self._values = [numbers(group, names) for group, names in zip(groups, self._names, strict=True)]
        for parameter in self._leaves:
            self._put(parameter, given.get(parameter, {}))
        self._take_steps(given)

    def _where(self, groups: list[dict[str, Any]], i: int, j: int) -> str:
        return f"{type(self).__name__}: {self._name(groups, i, j)}"

    def _in_words(self, error: Exception, groups: list[dict[str, Any]]) -> Exception:
        """What the native state says of a path of its own, said of the parameter there."""
        text = re.sub(r"^(setup|update): ", f"{type(self).__name__}: ", str(error))
        text = text.replace(
            "call setup again for the new array", "make a new optimiser, which may load this one's state"
        )
        named = re.sub(r'"(\d+)\.(\d+)"', lambda at: f'"{self._name(groups, int(at[1]), int(at[2]))}"', text)
        return type(error)(named)

    def _name(self, groups: list[dict[str, Any]], i: int, j: int) -> str:
        return groups[i].get("param_names", {j: f"parameter {j} of group {i}"})[j]  # type: ignore[no-any-return]

    def _entries(self, parameter: Any) -> Mapping[str, Any]:
        return self._states.get(parameter, {})  # type: ignore[no-any-return]

    def _put(self, parameter: Any, given: Mapping[str, Any]) -> None:
        for key, view in self._entries(parameter).items():
            if key in given:
                put(view, given[key])
        if PYTHON in given:
            self._native._core.set_user_states(self._leaves[parameter], deepcopy(given[PYTHON]))

    def _fill(self, parameter: Any, given: Mapping[str, Any]) -> None:
        """What assigning `state[parameter] = given` means."""
        check_given(self._entries(parameter), given, "state")
        exported = self._exported() | {parameter: given}
        self._bind(self.param_groups, exported)

    def _follow(self, lists: list[list[Any]]) -> None:
        """Make the native state anew where parameters were swapped, came, went, or have their shape only now."""
        if self._shapeless and not all(map(is_shapeless, self._shapeless)):
            kept = {p: state for p, state in self._exported().items() if p not in self._shapeless}
            self._bind(self.param_groups, kept)
        elif not self._is_bound_to(lists):
            self._bind(self.param_groups, self._exported())

    def _is_bound_to(self, lists: list[list[Any]]) -> bool:
        return len(lists) == len(self._bound) and all(
            len(now) == len(then) and all(map(operator.is_, now, then))
            for now, then in zip(lists, self._bound, strict=True)
        )

    def _exported(self) -> dict[Any, dict[str, Any]]:
        """The state by parameter: the views, and what no view shows. Swapped parameters are found by their places."""
        core = self._native._core
        exported = {}
        for i, (rule, params) in enumerate(zip(self._rules, self._bound, strict=True)):
            known: dict[int, list[float]] = {}
            now = self.param_groups[i]["params"] if i < len(self.param_groups) else ()
            for j, parameter in enumerate(params):
                if parameter not in self._leaves:
                    continue
                leaf = self._leaves[parameter]
                state = dict(self._entries(parameter))
                steps, clocks = int(self._counts.array[leaf]), clocks_of(core, leaf)
                if steps not in known:
                    known[steps] = clock_after(rule, steps)
                if clocks != known[steps]:
                    state[CLOCK] = [float(steps), *clocks]
                user = core.user_states(leaf)
                if user:
                    state[PYTHON] = user
                exported[parameter] = state
                if j < len(now) and now[j] is not parameter and (steps or type(now[j]) is type(parameter)):
                    exported[now[j]] = state  # whoever took this one's place
        return exported

    def _take_steps(self, given: Mapping[Any, Mapping[str, Any]] | None = None) -> None:
        """Set the rules' clocks to the steps that were counted, or to clocks that were saved at that step.

        Others carry a saved clock along, as torch.optim does with what it does not know, and count on.
        """
        core = self._native._core
        for rule, params in zip(self._rules, self._bound, strict=True):
            known: dict[int, list[float]] = {0: clock_after(rule, 0)}
            for parameter in params:
                if parameter not in self._leaves:
                    continue
                leaf = self._leaves[parameter]
                steps = int(self._counts.array[leaf])
                if steps not in known:
                    known[steps] = clock_after(rule, steps)
                saved = (given or {}).get(parameter, {}).get(CLOCK, ())
                same = len(saved) == len(known[steps]) + 1 and saved[0] == steps
                core.set_clocks(leaf, list(map(float, saved[1:] if same else known[steps])))
        self._counts.taken()

    def _change(self, i: int, group: dict[str, Any], values: list[Any]) -> None:
        """Take a group's new entries: other numbers in place, another structure with a new native state."""
        rule = self._rule(group)
        if structure(rule) != structure(self._rules[i]):
            return self._bind(self.param_groups, self._exported(), adds_slots=True)
        self._adjust(i, rule)
        self._rules[i], self._values[i] = rule, values
        return None

    def _adjust(self, i: int, rule: Rule) -> None:
        opt.adjust_(self._native[i], rule)

    def _gradients(self, lists: list[list[Any]]) -> list[list[Any]]:
        """Gradients in the form of `as_native`, turned round where a group goes up, measured over processes."""
        grads = []
        for i, (group, params) in enumerate(zip(self.param_groups, lists, strict=True)):
            found = [
                gradient_of(p, self._where(self.param_groups, i, j), p in self._whole) for j, p in enumerate(params)
            ]
            if group["maximize"]:
                there = [g for g in found if g is not None]
                turned = iter(torch._foreach_neg(there) if there else ())
                found = [None if g is None else next(turned) for g in found]
            grads.append(found)
        if self._is_distributed:
            self._clip_over_ranks(lists, grads)
        return grads

    def _clip_over_ranks(self, lists: list[list[Any]], grads: list[list[Any]]) -> None:
        clipped = [i for i, group in enumerate(self.param_groups) if group["clip_grad_norm"] is not None]
        if not clipped:
            return
        pairs = [
            (p.device_mesh if sharded(p) and p not in self._whole else None, g)
            for i in clipped
            for p, g in zip(lists[i], grads[i], strict=True)
            if g is not None
        ]
        self._norm = norm_over_ranks(pairs)
        for i in clipped:
            limit = self.param_groups[i]["clip_grad_norm"]
            if not self._norm < float("inf"):
                raise opt.NonFiniteError(f"{type(self).__name__}: the norm of the gradients is {self._norm}")
            rule = in_front(
                opt.Descent(min(1.0, limit / self._norm) if self._norm else 1.0), self._rule_of(self.param_groups[i])
            )
            self._adjust(i, rule)

    def _explain(self, lists: list[list[Any]]) -> None:
        """Raise with the parameter's name where torch's words for it are clearer."""
        refuse_sparse(chain.from_iterable(lists), type(self).__name__)
        for i, params in enumerate(lists):
            for j, p in enumerate(params):
                leaf, native = self._native[i][j], self._whole.native(p)
                shape = None if native is None else tuple(native.shape)
                if leaf is not None and shape != leaf.shape:
                    raise InvalidValueError(
                        f"{self._where(self.param_groups, i, j)} has shape {shape}, its state has "
                        f"{leaf.shape}; make a new optimiser after changing a parameter's shape"
                    ) from None
