"""What optimisers.jax refuses, while JAX traces or a program runs; that importing optimisers imports no JAX."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import optimisers as opt

jax = pytest.importorskip("jax", reason="JAX is not installed; optimisers.jax is not tested")
from optimisers.jax import optax as ours  # noqa: E402
from optimisers.jax import transform  # noqa: E402

jnp = jax.numpy
PARAMS = {"a": {"w": jnp.ones(3)}, "b": jnp.ones(2)}


def applied(grads: Any, params: Any = PARAMS, rule: Any = None, **given: Any) -> Any:
    tx = transform(rule or opt.Adam())
    return jax.jit(lambda p, g: tx.apply(p, g, tx.init(params), **given))(params, grads)


@pytest.mark.parametrize(
    "other", [{"a": {"w": jnp.ones(3)}}, {"a": jnp.ones(3), "b": jnp.ones(2)}, {"a": None, "b": 1}]
)
def test_another_structure_is_refused_with_both(other: Any) -> None:
    with pytest.raises(ValueError, match="apply: the gradients must have the structure of the parameters") as error:
        applied(other)
    assert "PyTreeDef({'a': {'w': *}, 'b': *})" in str(error.value) and str(jax.tree.structure(other)) in str(
        error.value
    )


def test_shapes_and_types_are_refused_with_the_path() -> None:
    with pytest.raises(ValueError, match=r'gradient at "a.w" has shape \(2,\), parameter has \(3,\)'):
        applied({"a": {"w": jnp.ones(2)}, "b": jnp.ones(2)})
    with pytest.raises(ValueError, match='gradient at "b" is complex64, parameter is real'):
        applied({"a": {"w": jnp.ones(3)}, "b": jnp.ones(2, "complex64")})
    with pytest.raises(TypeError, match='parameter at "b" is a float; expected an array'):
        transform(opt.Adam()).init({"a": jnp.ones(2), "b": 1.0})


def test_states_of_other_rules_and_parameters_are_refused() -> None:
    state = transform(opt.Adam()).init(PARAMS)
    with pytest.raises(ValueError, match=r"the state is of another rule: it has the slots \[\['m', 'v'\]\]"):
        transform(opt.Momentum()).apply(PARAMS, PARAMS, state)
    with pytest.raises(
        ValueError, match=r'the slot m at "a.w" is of float32 and shape \(3,\), expected .* shape \(4,\)'
    ):
        other = {"a": {"w": jnp.ones(4)}, "b": jnp.ones(2)}
        transform(opt.Adam()).apply(other, other, state)
    with pytest.raises(ValueError, match="the slot m must have the structure of the parameters"):
        transform(opt.Adam()).apply({"a": jnp.ones(3)}, {"a": jnp.ones(3)}, state)
    with pytest.raises(TypeError, match="expected the state that init returned, got tuple"):
        transform(opt.Adam()).apply(PARAMS, PARAMS, ())  # type: ignore[arg-type]


def test_rules_that_cannot_be_compiled_are_refused() -> None:
    class Mine(opt.Rule):
        def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
            return state, dx

    with pytest.raises(TypeError, match="transform: Mine is a rule written in Python"):
        transform(opt.OptimiserChain(Mine(), opt.Adam()))
    with pytest.raises(TypeError, match="optax: expected a rule"):
        ours(0.1)


def test_hyperparameters_are_refused_by_name_shape_and_range() -> None:
    tx = transform(opt.OptimiserChain(opt.AccumGrad(2), opt.Adam()))
    state = tx.init(PARAMS)
    for call in (lambda **f: tx.adjust(state, **f), lambda **f: tx.apply(PARAMS, PARAMS, state, **f)):
        with pytest.raises(ValueError, match="betta is no field of these rules; fields that change are 'eta', 'beta'"):
            call(betta=1.0)
        with pytest.raises(ValueError, match="n decides what is compiled"):
            call(n=3)
    with pytest.raises(ValueError, match=r"beta must be a pair of numbers in \[0, 1\)"):
        tx.adjust(state, beta=(1.0, 0.5))
    with pytest.raises(ValueError, match=r"beta must have shape \(2,\), got \(\)"):
        applied(PARAMS, beta=jnp.float32(0.5))
    with pytest.raises(ValueError, match="eta must be"):
        transform(opt.Adam(), eta=-1.0)


def test_what_a_running_program_finds_out_is_an_error_of_its_own() -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"Adam: eta must be a number in \[0, inf\), got -1"):
        jax.block_until_ready(applied(PARAMS, eta=jnp.float32(-1)))
    nan = {"a": {"w": jnp.full(3, jnp.nan)}, "b": jnp.ones(2)}
    with pytest.raises(jax.errors.JaxRuntimeError, match=r'norm .*"a.w"'):
        jax.block_until_ready(applied(nan, rule=opt.OptimiserChain(opt.ClipNorm(), opt.Adam())))
    assert not np.isfinite(applied(nan, rule=opt.ClipNorm(throw=False))[0]["a"]["w"]).any()
    applied(PARAMS)  # and the next one runs


def test_calls_of_programs_that_are_not_ours_are_refused() -> None:
    transform(opt.Adam()).apply(PARAMS, PARAMS, transform(opt.Adam()).init(PARAMS))
    bits, x = jnp.zeros((0, 2), jnp.uint32), jnp.ones(3)
    fine = {"rule": "Descent()", "names": "", "stand_in": np.zeros(0, np.int64), "subtracts": np.ones(1, np.int64)}
    one = jnp.zeros((1, 2), jnp.uint32)
    for operands, attributes in (
        ((bits, bits, x, x), {}),
        ((bits, one, x), {}),
        ((bits, one, x, jnp.ones(2)), {}),
        ((x, one, x, x), {}),
        ((bits, one, x, jnp.arange(3)), {}),
        ((bits, one, x, x, x), {}),
        ((bits, one, x, x), {"rule": "Descent(eta="}),
        ((bits, one, x, x), {"rule": "Adam()"}),
        ((bits, one, x, x), {"stand_in": np.array([7])}),
        ((bits, one, x, x), {"subtracts": np.zeros(0, np.int64)}),
        ((bits, one, x, x), {"names": 3}),
        ((), {}),
    ):
        call = jax.ffi.ffi_call("optimisers_step", [jax.ShapeDtypeStruct((0, 2), jnp.uint32), x])
        with pytest.raises((jax.errors.JaxRuntimeError, ValueError)):
            jax.block_until_ready(call(*operands, **{**fine, **attributes}))


def test_optimisers_alone_imports_no_jax() -> None:
    script = "import optimisers, sys; assert not [m for m in sys.modules if m.split('.')[0] in ('jax', 'jaxlib')]"
    subprocess.run([sys.executable, "-c", script], check=True)
