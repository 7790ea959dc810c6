"""optimisers.jax.optax: a rule where an optax transformation is expected."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import RULES, bits, needed

import optimisers as opt

jax = pytest.importorskip("jax", reason="JAX is not installed; optimisers.jax is not tested")
optax = pytest.importorskip("optax", reason="optax is not installed; what fits into it is not tested")
from optimisers.jax import optax as ours  # noqa: E402
from optimisers.jax._rule import Plan  # noqa: E402

jnp = jax.numpy
HEADERS = Path(__file__).resolve().parents[3] / "cpp/include/optimisers/rules"
PARAMS = {"w": jnp.arange(6.0).reshape(2, 3) - 2, "b": jnp.ones(3)}


def test_updates_are_what_the_rule_subtracts() -> None:
    rule = opt.OptimiserChain(opt.ClipNorm(1.0), opt.AdamW(0.1))
    tx, params = ours(rule), PARAMS
    state = tx.init(params)
    want = {k: np.array(v) for k, v in sorted(params.items())}
    other = opt.setup(rule, want)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params, state, params, anything=1)
        return optax.apply_updates(params, updates), state

    for _ in range(3):
        params, state = step(params, state)
        opt.update_(other, want, {k: v.copy() for k, v in want.items()})
    assert all(bits(np.asarray(params[k])) == bits(want[k]) for k in want) and step._cache_size() == 1


def test_what_an_open_window_holds_back_is_a_zero_update() -> None:
    tx = ours(opt.OptimiserChain(opt.AccumGrad(2), opt.Descent(1.0)))
    updates, state = tx.update(PARAMS, tx.init(PARAMS))
    assert not updates["w"].any()
    updates, _ = tx.update(PARAMS, state)
    assert bits(np.asarray(updates["w"])) == bits(-np.asarray(PARAMS["w"]))


@pytest.mark.parametrize("name", RULES)
def test_parameters_are_asked_for_where_a_rule_looks_at_them(name: str) -> None:
    rule = RULES[name](**needed(name))
    tx = ours(rule)
    state = tx.init(PARAMS)
    if not Plan(rule, "optax").looks_at_parameters():
        one, _ = tx.update(PARAMS, state)
        other, _ = tx.update(PARAMS, state, jax.tree.map(lambda x: x * 1e3 - 7, PARAMS))
        assert bits(*map(np.asarray, one.values())) == bits(*map(np.asarray, other.values()))
        return
    with pytest.raises(ValueError, match="looks at the parameters; call update"):
        tx.update(PARAMS, state)


def test_which_rules_look_at_parameters() -> None:
    """Also those whose values hide it: no decay, wide bounds."""
    named = set()
    for name in RULES:
        (text,) = [t for path in HEADERS.glob("*.hpp") if f"struct {name} {{" in (t := path.read_text())]
        if any(" T x," in apply for apply in re.findall(r"static void apply\(const Step<[^;{]*\{", text)):
            named.add(name)
    looking = {name for name in RULES if Plan(RULES[name](**needed(name)), "optax").looks_at_parameters()}
    assert named - looking == {"OAdam"}  # which hands it on to Adam's
    assert looking < named
    assert Plan(opt.WeightDecay(0.0), "optax").looks_at_parameters()
    assert Plan(opt.Lookahead(n=100_000), "optax").looks_at_parameters()
    assert Plan(opt.Box((-1e30, 1e30)), "optax").looks_at_parameters()


def test_it_is_chained_masked_parted_and_injected() -> None:
    adam = ours(opt.Adam(0.1))
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    alone, _ = adam.update(grads, adam.init(PARAMS))
    chained = optax.chain(optax.scale(2.0), adam, optax.scale(3.0))
    updates, _ = chained.update(jax.tree.map(lambda g: g / 2, grads), chained.init(PARAMS), PARAMS)
    assert bits(np.asarray(updates["w"])) == bits(3 * np.asarray(alone["w"]))
    masked = optax.masked(adam, {"w": True, "b": False})
    state = masked.init(PARAMS)
    assert isinstance(state.inner_state.slots[0]["m"]["b"], optax.MaskedNode)
    updates, _ = jax.jit(masked.update)(grads, state, PARAMS)
    assert bits(np.asarray(updates["w"]), np.asarray(updates["b"])) == bits(np.asarray(alone["w"]), np.ones(3, "f4"))
    parted = optax.multi_transform({"a": adam, "d": ours(opt.Descent(0.5))}, {"w": "a", "b": "d"})
    updates, _ = jax.jit(parted.update)(grads, parted.init(PARAMS), PARAMS)
    assert bits(np.asarray(updates["w"])) == bits(np.asarray(alone["w"])) and (updates["b"] == -0.5).all()
    injected = optax.inject_hyperparams(lambda eta: ours(opt.Adam(), eta=eta))(eta=0.1)
    state = injected.init(PARAMS)
    update = jax.jit(injected.update)
    first, state = update(grads, state, PARAMS)
    state.hyperparams["eta"] = jnp.float32(0.0)
    second, _ = update(grads, state, PARAMS)
    np.testing.assert_allclose(first["w"], alone["w"], rtol=1e-6)
    assert not second["w"].any() and update._cache_size() == 1


def test_optax_knows_which_part_of_the_state_is_of_parameters() -> None:
    tx = ours(opt.Adam(0.1))
    state = optax.tree.map_params(tx, lambda x: x + 1, tx.init(PARAMS))
    assert (state.slots[0]["m"]["w"] == 1).all() and int(state.count) == 0
    assert state.clock_values() == tx.init(PARAMS).clock_values()
    assert optax.tree.get(tx.init(PARAMS), "v")["b"].shape == (3,)


def test_slots_that_start_at_a_hyperparameter_start_at_what_stands_in() -> None:
    state = jax.jit(lambda eta: ours(opt.Rprop(), eta=eta).init(PARAMS))(0.25)
    assert (state.slots[0]["eta"]["w"] == 0.25).all()


def test_a_schedule_of_optax_runs_inside() -> None:
    schedule = optax.cosine_decay_schedule(1.0, 10)
    tx = ours(opt.Descent(), eta=schedule)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for i in range(3):
        updates, state = update(PARAMS, state)
        np.testing.assert_allclose(updates["w"], -PARAMS["w"] * schedule(i), rtol=1e-6)
    assert update._cache_size() == 1


def test_master_copies_are_refused() -> None:
    with pytest.raises(ValueError, match=r"optax: MixedPrecision .* use transform"):
        ours(opt.MixedPrecision(opt.Adam()))


def test_without_optax_it_is_a_pair_of_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optax", None)
    tx = ours(opt.Descent(1.0))
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    assert type(tx).__name__ == "GradientTransformation" and bits(np.asarray(updates["b"])) == bits(-np.ones(3, "f4"))
