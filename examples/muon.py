"""Muon for the hidden matrices and AdamW for all else: one state, one schedule, one file. Beside AdamW alone.

The data are the 1,797 digits that come with scikit-learn. The first layer, the head and the biases are no hidden
matrices: they are AdamW's in both.
"""

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import optimisers as opt

EPOCHS, BATCH = 6, 64
pixels, digits = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits)
train, held_out = slice(0, 1400), slice(1400, None)

ADAMW = opt.AdamW(1e-3, lambda_=1e-2)
RULES = {
    "AdamW alone": ADAMW,
    "Muon and AdamW": {"hidden.**.weight": opt.Muon(0.01, scaling="match_rms"), ...: ADAMW},
}


def new_model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.ModuleDict({"first": nn.Linear(64, 128)})
    layers["hidden"] = nn.Sequential(*(nn.Sequential(nn.Linear(128, 128), nn.GELU()) for _ in range(3)))
    layers["head"] = nn.Linear(128, 10)
    return layers


def scores(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    hidden = torch.nn.functional.gelu(model["first"](images))  # type: ignore[index]
    return model["head"](model["hidden"](hidden))  # type: ignore[index,no-any-return]


found = {}
for name, rules in RULES.items():
    model = new_model()
    state = opt.setup(rules, model)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(1400, generator=torch.Generator().manual_seed(epoch)).split(BATCH):  # type: ignore[no-untyped-call]
            loss = torch.nn.functional.cross_entropy(scores(model, x[batch]), y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            opt.update_(state, model, zero_grad=True)
        opt.adjust_(state, scale=0.7)  # every learning rate, Muon's and AdamW's
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(scores(model, x[train]), y[train])
        right = (scores(model, x[held_out]).argmax(1) == y[held_out]).float().mean()
    found[name] = loss.item()
    print(f"{name}: loss {loss:.4f} after {EPOCHS} epochs, {right:.1%} of the held-out digits are right")

with tempfile.TemporaryDirectory() as folder:  # all of it in one checkpoint
    opt.save(Path(folder) / "hybrid.safetensors", state, model)
    opt.load(Path(folder) / "hybrid.safetensors", state, model)

assert found["Muon and AdamW"] < found["AdamW alone"]
