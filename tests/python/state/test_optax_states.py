"""optax's states go on here, and back."""

import numpy as np
import pytest

import optimisers as opt

optax = pytest.importorskip("optax", reason="optax is not installed, whose states this is about")
jnp = pytest.importorskip("jax.numpy")

PAIRS = {
    "adam": (lambda: optax.adam(0.1), opt.Adam(0.1)),
    "adamw": (lambda: optax.adamw(0.1, weight_decay=0.25), opt.AdamW(0.1, lambda_=0.25)),
    "radam": (lambda: optax.radam(0.1, threshold=4.0), opt.RAdam(0.1)),
    "adamax": (lambda: optax.adamax(0.1), opt.AdaMax(0.1)),
    "lion": (lambda: optax.lion(0.1, b2=0.99, weight_decay=0.0), opt.Lion(0.1, (0.9, 0.99))),
    "sgd": (lambda: optax.sgd(0.1, momentum=0.9), opt.Momentum(0.1, 0.9)),
    "clipped": (
        lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1)),
        opt.OptimiserChain(opt.ClipNorm(0.5, scope="global"), opt.Adam(0.1)),
    ),
}


def params():
    return {"w": jnp.arange(6.0).reshape(2, 3), "b": [jnp.ones(2), jnp.zeros(())]}


def gradients(step):
    return {"w": jnp.full((2, 3), 0.5 - step), "b": [jnp.array([0.25, step + 1.0]), jnp.asarray(1.0 + step)]}


@pytest.mark.parametrize("name", PAIRS)
def test_optax_goes_on_here_and_back_there(name):
    make, rule = PAIRS[name]
    theirs, model = make(), params()
    opt_state = theirs.init(model)
    for step in range(3):
        updates, opt_state = theirs.update(gradients(step), opt_state, model)
        model = optax.apply_updates(model, updates)
    state, same = opt.from_optax(opt_state, model, rule), model
    back = opt.to_optax(state, model, theirs.init(model))
    for step in range(3, 6):
        updates, opt_state = theirs.update(gradients(step), opt_state, model)
        model = optax.apply_updates(model, updates)
        state, same = opt.update(state, same, gradients(step))
        updates, back = theirs.update(gradients(step), back, model)
    close = 1e-3 if name == "radam" else 2e-5  # optax takes a difference of 2,000s in float32 there
    assert np.allclose(model["w"], same["w"], rtol=close, atol=1e-6)
    assert np.allclose(model["b"][1], same["b"][1], rtol=close, atol=1e-6)
    import jax

    for a, b in zip(jax.tree_util.tree_leaves(opt_state), jax.tree_util.tree_leaves(back), strict=True):
        assert np.allclose(a, b, rtol=1e-6) or (name == "lion" and a.dtype == np.int32)  # Lion does not count here


def test_what_does_not_fit_is_refused():
    model = params()
    opt_state = optax.adam(0.1).init(model)
    with pytest.raises(ValueError, match="needs one TraceState"):
        opt.from_optax(opt_state, model, opt.Momentum())
    with pytest.raises(TypeError, match="one stage with state"):
        opt.from_optax(opt_state, model, opt.OptimiserChain(opt.Adam(), opt.Momentum()))
    with pytest.raises(ValueError, match="shape"):
        opt.from_optax(opt_state, model | {"w": jnp.ones(7)}, opt.Adam())
    with pytest.raises(ValueError, match="the model has none"):
        opt.from_optax(opt_state, {"x": jnp.ones(2)}, opt.Adam())
