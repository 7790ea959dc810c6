"""Param groups: the entries a rule has there, groups by rule, and the groupings people ask for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .. import _core
from .._core import InvalidTypeError, InvalidValueError
from .._fields import Change, changed_rule, core_name, fields_of, reached
from .._resolve import resolve
from .._rule import Rule, check_rule
from ._rules import ENTRY_NAMES

Groups = list[dict[str, Any]]


def entries_of_rule(rule: Rule) -> dict[str, Any]:
    """A rule's hyperparameters as a group has them: of the first stage that has one, `lr` of the last."""
    entries: dict[str, Any] = {}
    for stage in reached(rule):
        for field in fields_of(stage):
            name, value = ENTRY_NAMES.get(field.name, field.name), getattr(stage, field.name)
            if not field.structural and not isinstance(value, Rule) and (name not in entries or name == "lr"):
                entries[name] = value
    return entries


def rule_with(rule: Rule, entries: Mapping[str, Any]) -> Rule:
    """The rule with a group's entries; only those that differ from the rule's are set."""
    wanted = {n: v for n, v in entries_of_rule(rule).items() if n in entries and entries[n] != v}
    fields = {entry: field for field, entry in ENTRY_NAMES.items()}
    changes = [Change(None, core_name(fields.get(n, n)), entries[n]) for n in wanted if n != "lr"]
    rule = changed_rule(rule, changes) if changes else rule
    if "lr" not in wanted:
        return rule
    last = [i for i, stage in enumerate(rule._stages()) if "eta" in {f.name for f in fields_of(stage)}][-1]
    count = iter(range(last + 1))
    eta = [Change(None, "eta", entries["lr"])]
    return rule._mapped(lambda stage: changed_rule(stage, eta) if next(count, None) == last else stage)


def groups_by_rule(module: torch.nn.Module, rule: Any) -> Groups:
    """A module's trained parameters, those with equal rules as one group, in order of first appearance."""
    on_meta = next((name for name, p in module.named_parameters() if p.is_meta), None)
    if on_meta is not None and isinstance(rule, Rule):
        return [{"params": [(n, p) for n, p in module.named_parameters() if p.requires_grad], "rule": rule}]
    if on_meta is not None:
        raise InvalidValueError(
            f"Optimizer: {on_meta} is on the meta device, and rules by part look at what is there; make the optimiser "
            "after to_empty, or give groups of parameters with a rule each"
        )
    native = _core.Model(module, "Optimizer")
    rules, _ = resolve(rule, native)
    names = {id(p): name for name, p in module.named_parameters()}
    groups: dict[Any, dict[str, Any]] = {}
    for (path, parameter), chosen in zip(native.leaves(), rules, strict=True):
        if chosen is not None:
            check_rule(chosen, "Optimizer")
            group = groups.setdefault(chosen, {"params": [], "rule": chosen})
            group["params"].append((names.get(id(parameter), ".".join(map(str, path))), parameter))
    return list(groups.values())


def check_entries(group: Mapping[str, Any], known: Iterable[str], name: str) -> None:
    """Refuse an entry that nothing reads and that looks like a misspelt one."""
    known = {*known, "params", "param_names", "rule", "initial_lr"}
    for key in group:
        near = difflib.get_close_matches(key, known, 1, 0.85) if key not in known else []
        if near:
            raise InvalidValueError(
                f"{name}: a group has the entry {key!r}, which nothing reads; is {near[0]!r} meant?"
            )


def text_hint(group: Mapping[str, Any]) -> str:
    """What to say of numbers that came as texts, behind an error about them."""
    number = re.compile(r"\s*[-+]?[\d.]+(e[-+]?\d+)?\s*", re.IGNORECASE)
    names = [name for name, value in group.items() if isinstance(value, str) and number.fullmatch(value)]
    return f"; {', '.join(names)} came as text: YAML reads 1e-3 as text and 1.0e-3 as a number" if names else ""


def decay_groups(
    module: torch.nn.Module, weight_decay: float = 0.01, *, embeddings: bool = True, no_decay: Iterable[str] = ()
) -> Groups:
    """Two param groups: what decays, and what does not: biases, norms, and other parameters of one axis or none.

    Args:
        module: its parameters that require a gradient are grouped, each once.
        weight_decay: of the first group; the second has 0.
        embeddings: whether `torch.nn.Embedding` tables decay.
        no_decay: regular expressions; a parameter whose name one of them is found in does not decay either.

    Returns:
        Groups for any optimiser, with names: what decays first; an empty one is left out.

    Example:
        >>> import torch, optimisers.torch as ot
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
        >>> [(len(g["params"]), g["weight_decay"]) for g in ot.decay_groups(model, 0.1)]
        [(1, 0.1), (3, 0.0)]
    """
    patterns = [re.compile(p) for p in no_decay]
    tables = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding | torch.nn.EmbeddingBag)}
    groups: Groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    for name, p in module.named_parameters():
        if p.requires_grad:
            rests = p.ndim < 2 or any(map(re.Pattern.search, patterns, [name] * len(patterns)))
            rests |= not embeddings and id(p) in tables
            groups[rests]["params"].append((name, p))
    return [group for group in groups if group["params"]]


def layerwise_lr(module: torch.nn.Module, lr: float, decay: float, *, weight_decay: float | None = None) -> Groups:
    """Param groups whose learning rate falls from the last layer to the first: lr · decay^(layers behind).

    A layer is what shares the name up to its first number, as `blocks.3`; what stands before the first numbered
    layer is one layer (embeddings), what stands behind the last another (the head, at `lr` itself).

    Args:
        module: its parameters that require a gradient are grouped, in their order.
        lr: of what stands behind the last numbered layer.
        decay: in (0, 1]; the factor from one layer to the one before.
        weight_decay: if given, each layer is split as `decay_groups` does.

    Example:
        >>> import torch, optimisers.torch as ot
        >>> model = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]),
        ...                              "head": torch.nn.Linear(2, 1)})
        >>> [round(g["lr"], 3) for g in ot.layerwise_lr(model, 1.0, 0.5)]
        [0.25, 0.5, 1.0]
    """
    if not 0 < decay <= 1:
        raise InvalidValueError(f"layerwise_lr: decay must be in (0, 1], got {decay!r}")
    layers: list[tuple[str, list[tuple[str, torch.nn.Parameter]]]] = []
    for name, p in module.named_parameters():
        if not p.requires_grad:
            continue
        numbered = re.match(r"(.*?\d+)(\.|$)", name)
        layer = numbered[1] if numbered else ""
        if not layers or layers[-1][0] != layer:
            layers.append((layer, []))
        layers[-1][1].append((name, p))
    groups: Groups = []
    behind = len(layers) - 1 if layers and not layers[-1][0] else len(layers)
    for depth, (_, named) in enumerate(layers):
        rate = {"lr": lr * decay ** (behind - depth)}
        if weight_decay is None:
            groups.append({"params": named, **rate})
            continue
        for rests in (False, True):
            part = [(n, p) for n, p in named if (p.ndim < 2) == rests]
            if part:
                groups.append({"params": part, "weight_decay": 0.0 if rests else weight_decay, **rate})
    return groups


def refuse_sparse(parameters: Iterable[torch.Tensor], name: str) -> None:
    if any(p.grad is not None and p.grad.layout != torch.strided for p in parameters):
        raise InvalidTypeError(
            f"{name}: a gradient is sparse; make the embedding dense (sparse=False), or step it with "
            "torch.optim.SparseAdam and the rest with this"
        )
