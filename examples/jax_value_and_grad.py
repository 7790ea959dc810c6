"""JAX gives the gradients; the model stays NumPy arrays, updated in place."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import optimisers as opt

rng = np.random.default_rng(0)
x = rng.normal(size=(256, 3)).astype(np.float32)
y = x @ np.array([1.0, -2.0, 0.5], np.float32) + 0.3
model = {"w": np.zeros(3, np.float32), "b": np.zeros((), np.float32)}


@jax.jit
@jax.value_and_grad
def value_and_grad(model: Any, x: Any, y: Any) -> Any:
    return jnp.mean((x @ model["w"] + model["b"] - y) ** 2)


eta = opt.schedules.warmup_cosine(0.1, steps=200, warmup=10)
state = opt.setup(opt.Adam(), model)
history = opt.train_(value_and_grad, state, model, [(x, y)] * 200, callbacks=[opt.Adjusting(eta=eta)], progress=False)
print(history)
print("weights", model["w"].round(3), "bias", model["b"].round(3))

assert history.losses[-1] < 1e-4
