"""Optimizer: a torch.optim.Optimizer whose steps are this library's updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import torch

from .._core import InvalidTypeError, InvalidValueError, NonFiniteError, update_
from .._rule import Rule, check_rule
from ._bound import Bound, numbers
from ._entries import STEP
from ._groups import check_entries, entries_of_rule, groups_by_rule, rule_with, text_hint

STILL_ON_META = (
    "is on the meta device at a step; to_empty made other parameters, which this optimiser does not have: make it "
    "after that, or call torch.__future__.set_swap_module_params_on_conversion(True) before"
)
NO_MEMORY_YET = (
    "has no memory for the state that is loaded; load it after to_empty, or after a lazy module's first batch"
)


class Optimizer(Bound):
    """Any rule of this library as a `torch.optim.Optimizer`.

    What `torch.optim` promises holds: hyperparameters are read from `param_groups` at each step, a parameter whose
    `grad` is `None` is left alone, `grad` is never written, `state_dict` and `load_state_dict` have torch's keys.
    The state is allocated here and not at the first step. `optimizer.state[p]` holds views of it, without copies:
    what is written there is used. For optimisers by name (`AdamW`, `SGD`, ...) see this module.

    Args:
        params: tensors, `(name, tensor)` pairs, dicts of groups, or a Module. A group may have a `rule` of its own.
        rule: a rule or chain, or one written in Python; for a Module whatever `optimisers.setup` takes: patterns,
            a tree of rules, a function of path and leaf. Parameters with equal rules become one group.
        clip_grad_norm: the largest norm of all gradients together, or `None`. A norm that is not finite raises.
        maximize: go up instead of down; takes one more pass over the gradients.
        gather: sharded DTensors whose rule looks at whole arrays (`ClipNorm(scope="leaf")`) are gathered: each
            process steps the whole array, with a state of all of it, and keeps its part. Otherwise such rules are
            refused there.

    The entries of a group are the fields of its rule under torch's names, `lr`, `betas`, `eps`, `weight_decay`,
    `momentum`, others as they are. `lr` is the `eta` of the last stage that has one.

    Raises:
        ValueError, TypeError: what torch.optim raises them for, and hyperparameters out of range.

    Example:
        >>> import torch, optimisers as opt, optimisers.torch
        >>> model = torch.nn.Linear(3, 1)
        >>> rule = opt.OptimiserChain(opt.SignDecay(1e-4), opt.Lion(1e-3))
        >>> optimizer = opt.torch.Optimizer(model, rule, clip_grad_norm=1.0)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.state[model.weight]["exp_avg"].shape
        torch.Size([1, 3])
    """

    _own_entries: tuple[str, ...] = ("params", "param_names", "rule")  # which no file changes

    def __init__(
        self,
        params: Any,
        rule: Any,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        gather: bool = False,
        **entries: Any,
    ) -> None:
        self._gathers = gather
        defaults: dict[str, Any] = {"clip_grad_norm": clip_grad_norm, "maximize": maximize} | entries
        if isinstance(params, torch.nn.Module):
            if entries and not isinstance(rule, Rule):
                raise InvalidTypeError(f"Optimizer: {', '.join(entries)} beside rules by part; say it in those rules")
            params = groups_by_rule(params, rule)
        else:
            check_rule(rule, "Optimizer")
        if isinstance(rule, Rule):
            defaults = entries_of_rule(rule) | defaults | {"rule": rule}
        self._start(params, defaults)
        read = set().union(*map(self._reads, self.param_groups))
        unread = [name for name in entries if name not in read]
        if unread:
            raise InvalidTypeError(
                f"Optimizer: nothing reads {', '.join(unread)}; the rule's entries are "
                f"{', '.join(sorted(read - {'rule'}))}"
            )

    def _start(self, params: Any, defaults: dict[str, Any]) -> None:
        self._native: Any = None
        self._states: Any = {}
        super().__init__(params, defaults)
        self._bind(self.param_groups, {})

    # ---- what a group means; classes by name have it otherwise

    def _complete(self, group: dict[str, Any]) -> None:
        """Give a new group the entries of its rule."""
        rule: Any = group.setdefault("rule", self.defaults.get("rule"))
        check_rule(rule, "Optimizer")
        for name, value in entries_of_rule(rule).items():
            if rule == self.defaults.get("rule"):
                value = self.defaults[name]
            group.setdefault(name, value)
        check_entries(group, {*self.defaults, *entries_of_rule(rule)}, "Optimizer")
        if group.get("weight_decay") and "weight_decay" not in entries_of_rule(rule):
            raise InvalidValueError(
                f"Optimizer: a group has weight_decay={group['weight_decay']}, which {type(rule).__name__} does not "
                "read; take AdamW, or a chain with WeightDecay"
            )

    def _rule_of(self, group: Mapping[str, Any]) -> Rule:
        try:
            return rule_with(group["rule"], group)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{error}{text_hint(group)}") from None

    def _reads(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The entries on which `_rule_of` depends."""
        return ("rule", *entries_of_rule(group["rule"]))

    # ---- torch's interface

    @property
    def state(self) -> Any:
        """The state of each parameter, a dict of views under torch's names; assigned values are copied into them."""
        if self._native is not None and self._shapeless:
            self._follow([group["params"] for group in self.param_groups])
        return self._states

    @state.setter
    def state(self, given: Any) -> None:
        if self._native is None:
            self._states = given
        else:
            self._bind(self.param_groups, given)

    @property
    def grad_norm(self) -> Any:
        """The norm that `clip_grad_norm` measured in the last step, before clipping; `None` before the first."""
        return self._norm if self._native is None or self._norm is not None else self._native.norm

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; those that are there keep their state."""
        group = dict(param_group)
        if self._native is not None or group.get("rule") is not None or "rule" in self.defaults:
            self._complete(group)
        super().add_param_group(group)
        if self._native is None:
            return
        try:
            self._bind(self.param_groups, self._exported())
        except BaseException:
            self.param_groups.pop()
            raise

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: evaluates the model again and returns the loss.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step()
        return loss

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _step(self) -> None:
        lists = [group["params"] for group in self.param_groups]
        self._follow(lists)
        if self._shapeless:
            self._refuse_shapeless(self.param_groups, lambda p: p.is_meta, STILL_ON_META)
        for i, group in enumerate(self.param_groups):
            values = numbers(group, self._names[i])
            if values != self._values[i]:
                self._change(i, group, values)
            self._prepare(i, group)
        if self._counts.were_edited:
            self._take_steps()
        if self._native is None:
            return
        try:
            if self._explicit or any(group["maximize"] for group in self.param_groups):
                self._whole.gather()
                update_(
                    self._native, [list(map(self._whole.native, params)) for params in lists], self._gradients(lists)
                )
                self._whole.scatter()
            else:
                update_(self._native, lists)
        except (InvalidValueError, InvalidTypeError, NonFiniteError) as error:
            self._explain(lists)
            raise self._in_words(error, self.param_groups) from None

    def _refuse_shapeless(self, groups: list[dict[str, Any]], refused: Any, words: str) -> None:
        """Name the first parameter without memory that is among the refused."""
        for i, group in enumerate(groups):
            for j, p in enumerate(group["params"]):
                if p in self._shapeless and refused(p):
                    raise InvalidValueError(f"{self._where(groups, i, j)} {words}")

    def state_dict(self) -> dict[str, Any]:
        """The state and groups as torch.optim's; what they lack (clocks of a beta that changed) stands beside."""
        packed = super().state_dict()
        for group in packed["param_groups"]:
            if "rule" in group:
                group["rule"] = repr(group["rule"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        numbers = chain.from_iterable(group["params"] for group in packed["param_groups"])
        exported = self._exported()
        for number, parameter in zip(numbers, parameters, strict=True):
            if number in packed["state"]:
                given = exported.get(parameter, {}) | self._derived(parameter)
                # What has not stepped is empty in torch, and taken to begin anew: never a view that goes on changing.
                fresh = given.get(STEP, 1) == 0
                packed["state"][number] = {
                    k: (v.clone() if fresh else v.resolve_neg()) if torch.is_tensor(v) else v for k, v in given.items()
                }
        return packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take groups and state, torch.optim's own too; nothing is cast, and nothing is changed where it does not fit.

        Raises:
            ValueError: groups or parameters are others, or a state has another shape than its parameter.
        """
        state_dict = dict(state_dict)
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = pre_hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        saved = deepcopy(state_dict["param_groups"])
        if len(saved) != len(self.param_groups):
            raise InvalidValueError(
                f"load_state_dict: {len(saved)} parameter groups were saved, there are {len(self.param_groups)}"
            )
        given: dict[Any, Any] = {k: v for k, v in state_dict["state"].items() if not isinstance(k, int)}
        groups = []
        for i, (now, then) in enumerate(zip(self.param_groups, saved, strict=True)):
            if len(now["params"]) != len(then["params"]):
                raise InvalidValueError(
                    f"load_state_dict: group {i} had {len(then['params'])} parameters, it has {len(now['params'])}"
                )
            keep = {key: now[key] for key in self._own_entries if key in now}
            groups.append({**now, **then, **keep})
            for number, parameter in zip(then["params"], now["params"], strict=True):
                if number in state_dict["state"]:
                    given[parameter] = state_dict["state"][number]
        if self._shapeless:
            self._follow([group["params"] for group in self.param_groups])
            self._refuse_shapeless(groups, given.get, NO_MEMORY_YET)
        if not self._refill(groups, given):
            self._bind(groups, given)
        self.param_groups = groups
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def __getstate__(self) -> dict[str, Any]:
        saved = {"defaults": self.defaults, "param_groups": self.param_groups, "_saved": self._exported()}
        return saved | ({"_gathers": True} if self._gathers else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("_saved")
        self._native, self._states = None, {}
        super().__setstate__(state)
        self._bind(self.param_groups, saved)
