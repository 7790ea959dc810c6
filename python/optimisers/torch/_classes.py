"""The optimiser classes by name, made from the specs; `_classes.pyi` is their stub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .._core import InvalidTypeError, InvalidValueError
from .._fields import python_name
from .._rule import Rule
from ._entries import CLOCK, STEP, Entries
from ._groups import check_entries, text_hint
from ._optimizer import Optimizer
from ._rules import Spec, chained, entry_name, specs

# What torch.optim's constructors take and what has no meaning here: there is one implementation.
IGNORED = ("foreach", "fused", "capturable", "differentiable")


# Entries that no rule checks, or not under their own value.
_NOT_NEGATIVE = ("weight_decay", "lr_decay", "initial_accumulator_value")


class Named(Optimizer):
    """What the classes made from specs share."""

    _spec: Spec

    def _begin(self, params: Any, entries: dict[str, Any], ignored: dict[str, Any]) -> None:
        others = [name for name in ("foreach", "differentiable") if ignored[name] and ignored["fused"]]
        if others:
            raise RuntimeError(f"{self._spec.name}: fused and {others[0]} cannot both be True")
        if ignored["differentiable"]:
            raise ValueError(f"{self._spec.name}: steps are not differentiable; leave differentiable=False")
        self._rule_of(entries)  # before torch looks at the parameters, as torch does
        if isinstance(params, torch.nn.Module):
            params = [pair for pair in params.named_parameters() if pair[1].requires_grad]
        self._start(params, entries)

    def _complete(self, group: dict[str, Any]) -> None:
        if "rule" in group:
            raise InvalidValueError(
                f"{self._spec.name}: a group has a rule of its own; groups of several rules are Optimizer's: "
                "Optimizer(groups, rule)"
            )
        check_entries(group, self.defaults, self._spec.name)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self._complete(param_group)
        super().add_param_group(param_group)

    def _reads(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return (*self._spec.entries, *self._spec.keywords)

    def _rule_of(self, group: Mapping[str, Any]) -> Rule:
        for name, value in group.items():
            if name != "params" and torch.is_tensor(value) and value.numel() != 1:
                raise InvalidValueError(
                    f"{self._spec.name}: {name} must be a number or a tensor of one, got a tensor of shape "
                    f"{tuple(value.shape)}"
                )
        for name in _NOT_NEGATIVE:
            if name in group and (isinstance(group[name], str) or group[name] is None):
                raise InvalidTypeError(
                    f"{self._spec.name}: {name} must be a number, got {group[name]!r}{text_hint(group)}"
                )
            if name in group and not group[name] >= 0:
                raise InvalidValueError(f"{self._spec.name}: {name} must be a number in [0, inf), got {group[name]}")
        try:
            return chained(*self._spec.rules(group))
        except (ValueError, TypeError) as error:
            raise type(error)(self._renamed(str(error)) + text_hint(group)) from None

    def _change(self, i: int, group: dict[str, Any], values: list[Any]) -> None:
        powers = self._new_powers(i, group)
        super()._change(i, group, values)
        for name, power in powers.items():
            self._native._core.set_clock_scalar(self._native[i]._node, name, power)

    def _new_powers(self, i: int, group: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Of betas that have changed since the last step, to the steps of every leaf.

        torch corrects the bias with the power of the beta there is now; a rule's clock has the product of all.
        """
        before = dict(zip(self._names[i], self._values[i], strict=True)).get("betas")
        betas = group.get("betas")
        if betas is None or tuple(betas) == tuple(before or ()):
            return {}
        steps = self._counts.array.astype("float64")
        return {
            name: float(beta) ** steps
            for name, beta in zip(("beta1_t", "beta2_t"), betas, strict=True)
            if name == "beta2_t" or self._spec.name != "NAdam"  # whose product of momenta runs in torch too
        }

    def _exported(self) -> dict[Any, dict[str, Any]]:
        """The clocks with the betas that the groups have now: whoever takes them compares with no older ones."""
        exported = super()._exported()
        core = self._native._core
        for i, group in enumerate(self.param_groups[: len(self._bound)]):
            powers = self._new_powers(i, group)
            for parameter in self._bound[i] if powers else ():
                if parameter in self._leaves:
                    leaf = self._leaves[parameter]
                    scalars = [pair for stage in core.clocks(leaf) for pair in stage]
                    exported[parameter][CLOCK] = [
                        float(self._counts.array[leaf]),
                        *(float(powers[name][leaf]) if name in powers else value for name, value in scalars),
                    ]
        return exported

    def _renamed(self, message: str) -> str:
        """An error about a field, under the name of the entry."""
        rule, colon, rest = message.partition(": ")
        field, space, what = rest.partition(" ")
        entry = entry_name(rule, python_name(field))
        return f"{self._spec.name}{colon}{entry}{space}{what}" if colon else message


def _fill(view: torch.Tensor, value: float) -> None:
    """Both parts of complex numbers."""
    (torch.view_as_real(view) if view.is_complex() else view).fill_(value)


class _SGD(Named):
    """The first step of a parameter is not damped: torch starts the buffer at the gradient itself."""

    _lists_empty = False  # as torch's without momentum: a step of lr 0 changes nothing

    def _put(self, parameter: Any, given: Mapping[str, Any]) -> None:
        super()._put(parameter, given)
        buffer = given.get(
            "momentum_buffer"
        )  # its state has no count: what is in the buffer says that there were steps
        if buffer is not None and bool(buffer.any()):
            self._counts.array[self._leaves[parameter]] = 1

    def _prepare(self, i: int, group: Mapping[str, Any]) -> None:
        if not group["dampening"] or not group["momentum"]:
            return
        missing = float(group["dampening"]) / float(group["momentum"])
        for p in group["params"]:
            if p.grad is not None and p in self._leaves and self._counts.array[self._leaves[p]] == 0:
                first = p.grad.detach() * (-1 if group["maximize"] else 1) + float(group["weight_decay"]) * p.detach()
                self._states[p]["momentum_buffer"].copy_(first * missing)


class _Adagrad(Named):
    def _initial(self, parameter: torch.Tensor, group: Mapping[str, Any], entries: Entries) -> None:
        _fill(entries["sum"], float(group["initial_accumulator_value"]))

    def _prepare(self, i: int, group: Mapping[str, Any]) -> None:
        if not group["lr_decay"]:
            return
        import optimisers as opt

        for j, p in enumerate(group["params"]):
            if p.grad is not None and p in self._leaves:
                steps = int(self._counts.array[self._leaves[p]])
                rate = float(group["lr"]) / (1 + steps * float(group["lr_decay"]))
                opt.adjust_(self._native[i][j], rate)


class _Rprop(Named):
    def _initial(self, parameter: torch.Tensor, group: Mapping[str, Any], entries: Entries) -> None:
        """torch brings the first step's size between its limits too."""
        smallest, largest = group["step_sizes"]
        _fill(entries["step_size"], min(max(float(group["lr"]), float(smallest)), float(largest)))

    def _change(self, i: int, group: dict[str, Any], values: list[Any]) -> None:
        super()._change(i, group, values)
        self._begin_anew(group)

    def _take(self, groups: list[dict[str, Any]], rules: list[Rule], given: Mapping[Any, Mapping[str, Any]]) -> None:
        super()._take(groups, rules, given)
        for group in groups:
            self._begin_anew(group)

    def _begin_anew(self, group: Mapping[str, Any]) -> None:
        """What has not stepped begins with the learning rate there is then."""
        for p in group["params"]:
            if p in self._leaves and self._states[p][STEP] == 0:
                self._initial(p, group, self._states[p])


class _NAdam(Named):
    def _take_steps(self, given: Mapping[Any, Mapping[str, Any]] | None = None) -> None:
        """torch's product of momenta, where it is another than that of the betas there are now."""
        super()._take_steps(given)
        core = self._native._core
        for parameter, state in (given or {}).items():
            if "mu_product" not in state or parameter not in self._leaves:
                continue
            leaf, product = self._leaves[parameter], float(state["mu_product"])
            scalars = [pair for stage in core.clocks(leaf) for pair in stage]
            if np.float32(dict(scalars)["beta1_t"]) != np.float32(product):
                core.set_clocks(leaf, [product if name == "beta1_t" else value for name, value in scalars])

    def _derived(self, parameter: torch.Tensor) -> dict[str, Any]:
        clocks = dict(pair for stage in self._native._core.clocks(self._leaves[parameter]) for pair in stage)
        return {"mu_product": torch.tensor(clocks["beta1_t"], dtype=torch.float32)}


_BASES: dict[str, type[Named]] = {"SGD": _SGD, "Adagrad": _Adagrad, "Rprop": _Rprop, "NAdam": _NAdam}


def _docstring(spec: Spec) -> str:
    update = "\n".join("    " + line for line in spec.about.update.split("\n"))
    names = ", ".join(spec.entries | spec.keywords)
    notes = f"\nNotes:\n    {spec.notes} {spec.about.notes}\n" if spec.notes or spec.about.notes else ""
    return f"""{spec.about.summary}

{update}

Names and defaults are {"torch.optim's" if hasattr(torch.optim, spec.name) else "this library's"}. What every class has
beside: `clip_grad_norm`, the largest norm of all gradients together, clipped in the same sweep, the norm at
`optimizer.grad_norm`; `maximize`. `foreach`, `fused` and `capturable` are accepted and mean nothing: there is one
implementation.

Args:
    params: tensors, `(name, tensor)` pairs, dicts of groups, or a Module.
    {names}: entries of the groups, read at each step.

Raises:
    ValueError: a value is out of range, or there are no parameters.
{notes}
Reference:
    {spec.about.reference}

Example:
    >>> import torch, optimisers.torch as ot
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = ot.{spec.name}(model.parameters(), lr=0.1)
    >>> model(torch.ones(2, 3)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.zero_grad()
"""


def signature_of(spec: Spec) -> str:
    """The arguments of a class's constructor as source."""
    by_position = [f"{name}={value!r}" for name, value in spec.entries.items()]
    by_keyword = [f"{name}={value!r}" for name, value in spec.keywords.items() if spec.name != "AdamW"]
    ignored = ["foreach=None", "fused=None", "capturable=False", "differentiable=False"]
    return ", ".join(
        ["self", "params", *by_position, "*", "clip_grad_norm=None", "maximize=False", *by_keyword, *ignored]
    )


def _make(spec: Spec) -> type[Named]:
    names = [*spec.entries, *(spec.keywords if spec.name != "AdamW" else ()), "clip_grad_norm", "maximize"]
    fixed = spec.keywords if spec.name == "AdamW" else {}
    given = ", ".join(f"{name!r}: {name}" for name in names)
    ignored = ", ".join(f"{name!r}: {name}" for name in IGNORED)
    source = f"def __init__({signature_of(spec)}):\n    self._begin(params, {{{given}, **fixed}}, {{{ignored}}})\n"
    functions: dict[str, Any] = {"fixed": fixed}
    exec(compile(source, f"<{spec.name}>", "exec"), functions)
    init = functions["__init__"]
    init.__qualname__, init.__module__ = f"{spec.name}.__init__", "optimisers.torch"
    body = {
        "__init__": init, "__doc__": _docstring(spec), "__module__": "optimisers.torch", "_spec": spec,
        "_counts_steps": spec.counts, "_own_entries": (*Named._own_entries, *fixed),
    }  # fmt: skip
    return type(spec.name, (_BASES.get(spec.name, Named),), body)


CLASSES = tuple(map(_make, specs()))
globals().update({cls.__name__: cls for cls in CLASSES})
__all__ = ["CLASSES", *(cls.__name__ for cls in CLASSES)]
