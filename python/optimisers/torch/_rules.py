"""torch.optim's optimisers as rules: which entries of a group make which rule, and how torch calls the slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import optimisers as opt

from .._chains import MixedPrecision, OptimiserChain
from .._rule import BuiltinRule, Rule

Group = Mapping[str, Any]

# Entries of a param group, for the fields of rules.
ENTRY_NAMES = {"eta": "lr", "beta": "betas", "epsilon": "eps", "lambda_": "weight_decay", "rho": "momentum"}
# Where torch has another word for a field of one rule.
_ENTRIES_OF_RULES = {"RMSProp.rho": "alpha", "AdaDelta.rho": "rho", "Rprop.ell": "etas", "Rprop.gamma": "step_sizes"}
# What torch.optim's state_dict calls a slot; others keep their names.
SLOT_NAMES = {
    "m": "exp_avg", "v": "exp_avg_sq", "AMSGrad.w": "max_exp_avg_sq", "AdaMax.u": "exp_inf", "AdaGrad.a": "sum",
    "AdaDelta.a": "square_avg", "AdaDelta.delta": "acc_delta", "RMSProp.q": "square_avg", "RMSProp.l": "grad_avg",
    "Momentum.v": "momentum_buffer", "Nesterov.v": "momentum_buffer", "Rprop.g": "prev", "Rprop.eta": "step_size",
    "AdaBelief.s": "exp_avg_var",
}  # fmt: skip
NEGATED = {"Nesterov.v"}  # points where x goes; torch's along the gradient


def entry_name(rule: str, field: str) -> str:
    """What a group calls a field of a rule."""
    return _ENTRIES_OF_RULES.get(f"{rule}.{field}", ENTRY_NAMES.get(field, field))


@dataclass(frozen=True)
class Spec:
    """An optimiser class: its entries with defaults, by position and by keyword, and the rules they make."""

    name: str
    entries: dict[str, Any]
    rules: Callable[[Group], tuple[Rule | None, ...]]
    about: type[BuiltinRule]
    notes: str = ""
    keywords: dict[str, Any] = field(default_factory=dict)
    counts: bool = True  # whether the state has `step`


def chained(*rules: Rule | None) -> Rule:
    """The rules that are there, as one."""
    there = [rule for rule in rules if rule is not None]
    return there[0] if len(there) == 1 else OptimiserChain(*there)


def in_front(first: Rule | None, rule: Rule) -> Rule:
    """The rule behind another stage; a master copy stays outermost."""
    if first is None:
        return rule
    if isinstance(rule, MixedPrecision):
        return MixedPrecision(in_front(first, rule.rule), rule.dtype)
    return OptimiserChain(first, rule)


def coupled(g: Group) -> Rule | None:
    """The decay that is added to the gradient."""
    return opt.WeightDecay(g["weight_decay"]) if g["weight_decay"] else None


def decoupled(g: Group) -> Rule | None:
    """The decay that is added to what is subtracted, times the learning rate."""
    return opt.WeightDecay(g["lr"] * g["weight_decay"]) if g["weight_decay"] else None


def _with_decay(g: Group, rule: Rule) -> tuple[Rule | None, ...]:
    return (rule, decoupled(g)) if g["decoupled_weight_decay"] else (coupled(g), rule)


def _adam(g: Group) -> tuple[Rule | None, ...]:
    if g["amsgrad"]:
        return _with_decay(g, opt.AMSGrad(g["lr"], g["betas"], g["eps"], pytorch=True))
    if g["decoupled_weight_decay"]:
        return (opt.AdamW(g["lr"], g["betas"], g["weight_decay"], g["eps"]),)
    return coupled(g), opt.Adam(g["lr"], g["betas"], g["eps"])


def _nadam(g: Group) -> tuple[Rule | None, ...]:
    rule = opt.NAdam(g["lr"], g["betas"], g["eps"], pytorch=True, momentum_decay=g["momentum_decay"])
    return _with_decay(g, rule)


def _rmsprop(g: Group) -> tuple[Rule | None, ...]:
    if not g["momentum"]:
        return coupled(g), opt.RMSProp(g["lr"], g["alpha"], g["eps"], g["centered"])
    rms = opt.RMSProp(1.0, g["alpha"], g["eps"], g["centered"])
    return coupled(g), rms, opt.Momentum(1.0, g["momentum"]), opt.Descent(g["lr"])


def _sgd(g: Group) -> tuple[Rule | None, ...]:
    if g["nesterov"] and (not g["momentum"] or g["dampening"]):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")
    if not g["momentum"]:
        return coupled(g), opt.Descent(g["lr"])
    made = opt.Nesterov(1.0, g["momentum"]) if g["nesterov"] else opt.Momentum(1 - g["dampening"], g["momentum"])
    return coupled(g), made, opt.Descent(g["lr"])


ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
DECOUPLED = {"decoupled_weight_decay": False}
TORCH = (
    Spec("SGD", {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}, _sgd,
         opt.Momentum, "The chain WeightDecay, Momentum(1 − dampening) or Nesterov(1), Descent(lr): the buffer holds "
         "gradients, so that a learning rate that changes acts at once, as in torch.", counts=False),
    Spec("Adam", ADAM | {"weight_decay": 0.0, "amsgrad": False}, _adam, opt.Adam,
         "`weight_decay` is added to the gradient; with `decoupled_weight_decay` this is AdamW.", DECOUPLED),
    Spec("AdamW", ADAM | {"weight_decay": 1e-2, "amsgrad": False}, _adam, opt.AdamW,
         "", {"decoupled_weight_decay": True}),
    Spec("NAdam", ADAM | {"lr": 2e-3, "weight_decay": 0.0, "momentum_decay": 4e-3} | DECOUPLED, _nadam, opt.NAdam,
         "NAdam(pytorch=True), with the paper's momentum schedule."),
    Spec("RAdam", ADAM | {"weight_decay": 0.0} | DECOUPLED,
         lambda g: _with_decay(g, opt.RAdam(g["lr"], g["betas"], g["eps"], pytorch=True)), opt.RAdam,
         "RAdam(pytorch=True)."),
    Spec("Adamax", ADAM | {"lr": 2e-3, "weight_decay": 0.0},
         lambda g: (coupled(g), opt.AdaMax(g["lr"], g["betas"], g["eps"], pytorch=True)), opt.AdaMax,
         "AdaMax(pytorch=True)."),
    Spec("Adagrad", {"lr": 1e-2, "lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10},
         lambda g: (coupled(g), opt.AdaGrad(g["lr"], g["eps"])), opt.AdaGrad,
         "The sum starts at `initial_accumulator_value`; with `lr_decay` the learning rate of step t is "
         "lr/(1 + (t−1) lr_decay), which costs a visit of every parameter in Python."),
    Spec("Adadelta", {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
         lambda g: (coupled(g), opt.AdaDelta(g["rho"], g["eps"]), opt.Descent(g["lr"])), opt.AdaDelta),
    Spec("RMSprop", {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False},
         _rmsprop, opt.RMSProp, "Centred, the variance is clamped at 0, where torch takes the root of a negative "
         "rounding error."),
    Spec("Rprop", {"lr": 1e-2, "etas": (0.5, 1.2), "step_sizes": (1e-6, 50.0)},
         lambda g: (opt.Rprop(g["lr"], g["etas"], g["step_sizes"]),), opt.Rprop,
         "`lr` is what step sizes start at; later changes of it do nothing, as in torch."),
)  # fmt: skip
# Rules that torch.optim has under another name, or none at all by themselves.
_TORCH_HAS = {"Adam", "AdamW", "NAdam", "RAdam", "AdaMax", "AdaGrad", "AdaDelta", "RMSProp", "Rprop"}


def keeps_its_rate(cls: type[BuiltinRule]) -> bool:
    """Whether a rule's state is in units of eta, so that a step follows from the rates before and not from today's."""
    x = np.ones((1, 1)) if cls._matrix else np.ones(1)
    state = opt.init(cls(eta=1.0), x)
    opt.apply_(cls(eta=1.0), state, x, x)
    _, dx = opt.apply_(cls(eta=0.0), state, x, x)
    return bool(np.any(dx))


def own_spec(cls: type[BuiltinRule]) -> Spec:
    """The optimiser class of a rule that torch.optim lacks: the rule's defaults, and a decoupled decay."""
    names = {f.name: ENTRY_NAMES.get(f.name, f.name) for f in cls.fields}
    decays = "weight_decay" in names.values()
    entries = {names[f.name]: f.default for f in cls.fields} | ({} if decays else {"weight_decay": 0.0})

    by_itself = not keeps_its_rate(cls)

    def rules(g: Group) -> tuple[Rule | None, ...]:
        fields = {name: g[entry] for name, entry in names.items()}
        if by_itself:
            return cls(**fields), None if decays else decoupled(g)
        decay = opt.WeightDecay(g["weight_decay"]) if not decays and g["weight_decay"] else None
        return cls(**fields | {"eta": 1.0}), decay, opt.Descent(g["lr"])

    notes = "`weight_decay` is decoupled, as in AdamW." + (
        "" if by_itself else f" The chain {cls.__name__}(eta=1), Descent(lr): a rate that changes acts at once."
    )
    return Spec(cls.__name__, entries, rules, cls, notes)


def specs() -> tuple[Spec, ...]:
    """All optimiser classes: torch.optim's, then the registry's other rules that have a learning rate."""
    own = [c for c in opt.RULES if c.__name__ not in _TORCH_HAS and any(f.name == "eta" for f in c.fields)]
    return (*TORCH, *map(own_spec, own))


def slot_entries(rule: Rule) -> list[list[tuple[str, str, bool]]]:
    """For each stage its slots as (slot, name in the state, negated); names that come twice get a number."""
    seen: dict[str, int] = {}
    stages = []
    for stage in rule._stages():
        entries = []
        for slot in stage.slots:
            full = f"{type(stage).__name__}.{slot.name}"
            name = SLOT_NAMES.get(full, SLOT_NAMES.get(slot.name, slot.name))
            seen[name] = seen.get(name, 0) + 1
            entries.append((slot.name, name if seen[name] == 1 else f"{name}_{seen[name]}", full in NEGATED))
        stages.append(entries)
    return stages


def clock_after(rule: Rule, steps: int) -> list[float]:
    """All scalars of a rule's clocks after this many steps with these hyperparameters, stage by stage."""
    return [scalar for value in rule._values() for scalar in value.clock_after(steps)]
