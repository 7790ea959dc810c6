"""Different rules for the encoder and the head, and a frozen encoder in the first steps."""

import torch

import optimisers as opt

torch.manual_seed(0)
model = torch.nn.ModuleDict(
    {
        "encoder": torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.GELU()),
        "head": torch.nn.Linear(16, 1),
    }
)
x = torch.randn(256, 8)
y = x[:, :1] * x[:, 1:2]

# The first pattern that matches a leaf decides; `...` is for all others.
state = opt.setup({"encoder.1": opt.Adam(0.003), "encoder": opt.AdamW(0.01, lambda_=0.01), ...: opt.Adam(0.03)}, model)
print(state)

opt.freeze_(state.encoder)
for step in range(300):
    if step == 50:
        opt.thaw_(state.encoder)
    loss = torch.nn.functional.mse_loss(model["head"](model["encoder"](x)), y)
    loss.backward()  # type: ignore[no-untyped-call]
    opt.update_(state, model, zero_grad=True)
    if step in (0, 49, 299):
        print(f"step {step + 1}: loss {loss.item():.4f}")

assert loss.item() < 0.3
