"""A torch Module trained with plain PyTorch autograd."""

import torch

import optimisers as opt

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
x = torch.linspace(-3, 3, 128).reshape(-1, 1)
y = torch.sin(x)

# scope="global" is what torch.nn.utils.clip_grad_norm_ does; without it each parameter is clipped by its own norm.
state = opt.setup(opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), opt.AdamW(0.02)), model)
for step in range(300):
    loss = torch.nn.functional.mse_loss(model(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    opt.update_(state, model, zero_grad=True)
    if step % 100 == 99:
        opt.adjust_(state, 0.02 / (step // 100 + 2))
        print(f"step {step + 1}: loss {loss.item():.5f}")

assert loss.item() < 0.01
