"""A target network: a slow copy of the model that follows it by `lerp_`, as in deep reinforcement learning."""

import numpy as np

import optimisers as opt

rng = np.random.default_rng(0)
states, rewards = np.eye(5), np.array([0.0, 0.0, 0.0, 0.0, 1.0])
following = np.minimum(np.arange(5) + 1, 4)  # each state leads to the next, the last to itself
discount = 0.8

online = {"value": rng.normal(size=5)}
target = {"value": online["value"].copy()}
optimiser = opt.setup(opt.Adam(0.05), online)

for _ in range(2000):
    wanted = rewards + discount * target["value"][following]
    error = states @ online["value"] - wanted
    opt.update_(optimiser, online, {"value": states.T @ error})
    opt.lerp_(target, online, 0.05)

exact = discount ** (4 - np.arange(5)) / (1 - discount)
print("learned", online["value"].round(2))
print("exact  ", exact.round(2))
assert np.abs(online["value"] - exact).max() < 0.05
