"""A rule of one's own in Python, between two built-in ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import optimisers as opt


@dataclass(frozen=True)
class DecayDescent(opt.Rule):
    """Descent whose step shrinks with the root of the number of steps."""

    eta: float = 0.5

    def init(self, x: Any) -> int:
        return 1

    def apply(self, state: int, x: Any, dx: Any, *higher: Any) -> tuple[int, Any]:
        return state + 1, self.eta / state**0.5 * dx


rng = np.random.default_rng(0)
model = {"w": np.zeros(4)}
wanted = np.array([1.0, -2.0, 0.5, 3.0])

rule = opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), DecayDescent(), opt.WeightDecay(1e-4))
state = opt.setup(rule, model)
for step in range(400):
    noisy = model["w"] - wanted + rng.normal(scale=0.1, size=4)
    opt.update_(state, model, {"w": noisy})
    if step == 199:
        opt.adjust_(state, 0.25)  # its fields are hyperparameters like any other

print(state)
print("found", model["w"].round(2), "after", state["w"].state[1] - 1, "steps")
assert np.abs(model["w"] - wanted).max() < 0.1
