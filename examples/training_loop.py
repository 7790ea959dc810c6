"""A training with train_: batches of a DataLoader, a schedule by applied steps, and a part that goes on later."""

import pickle

import torch
from torch.utils.data import DataLoader, TensorDataset

import optimisers as opt
from optimisers import schedules

torch.manual_seed(0)
x = torch.linspace(-3, 3, 256).reshape(-1, 1)
data = DataLoader(TensorDataset(x, torch.sin(x)), batch_size=32, shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))


def loss(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    value = torch.nn.functional.mse_loss(model(x), y)
    value.backward()  # type: ignore[no-untyped-call]
    return value


# Two batches make one step; the schedule counts steps, not batches.
rule = opt.OptimiserChain(opt.AccumGrad(2), opt.ClipNorm(1.0, scope="global"), opt.AdamW(lambda_=1e-4))
state = opt.setup(rule, model)
eta = schedules.warmup(schedules.cosine(0.03, 0.0, steps=220), steps=20)
print(eta)

history = opt.train_(loss, state, model, data, epochs=20, callbacks=opt.Adjusting(eta=eta), progress=False)

# The same as if it had not been interrupted: what is saved is the model, the state and the history.
model, state, history = pickle.loads(pickle.dumps((model, state, history)))
opt.train_(
    loss, state, model, data, steps=40 * len(data), callbacks=opt.Adjusting(eta=eta), progress=False, history=history
)
print(history, history.applied, "applied")

assert len(history) == 480 and history.applied == 240
assert state[0].weight.rule.rules[2].eta == eta(239)
assert history.losses[-1] < 0.02 < history.losses[0]
