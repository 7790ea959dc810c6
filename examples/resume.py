"""Training that is killed again and again and goes on where it was: the bits of one that was not."""

import os
import signal
import subprocess
import sys
import tempfile

import numpy as np

import optimisers as opt

STEPS = 300


def train(folder: str) -> None:
    """Train from the newest file in the folder on, and save every fifth step."""
    rng = np.random.default_rng(7)
    inputs, wanted = rng.normal(size=(64, 8)), rng.normal(size=64)
    model = {"w": np.zeros(8), "b": np.zeros(1)}
    state = opt.setup(opt.OptimiserChain(opt.ClipNorm(1.0), opt.AdamW(0.01, lambda_=0.1)), model)
    batches, first = np.random.default_rng(1), 0
    if path := opt.latest(folder):
        loaded = opt.load(path, state, model)
        first, batches.bit_generator.state = loaded.extra["step"], loaded.extra["batches"]
    for step in range(first, STEPS):
        rows = batches.integers(64, size=16)  # its generator is a part of what goes on
        error = inputs[rows] @ model["w"] + model["b"] - wanted[rows]
        opt.update_(state, model, {"w": inputs[rows].T @ error / 16, "b": np.array([error.mean()])})
        if (step + 1) % 5 == 0:
            path = os.path.join(folder, f"step{step + 1}.safetensors")
            opt.save(path, state, model, keep=3, step=step + 1, batches=batches.bit_generator.state)
            print(step + 1, flush=True)


def uninterrupted(folder: str) -> str:
    train(folder)
    return folder


def killed(folder: str) -> str:
    """Run the training in processes that are killed at some step, until one reaches the end."""
    rng = np.random.default_rng()
    kills = 0
    while True:
        process = subprocess.Popen([sys.executable, __file__, folder], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(int(rng.integers(5, 30))):
            if not process.stdout.readline():
                break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if opt.latest(folder, f"step{STEPS}.safetensors"):
            print(f"killed {kills} times on the way")
            return folder
        kills += 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
            last = f"step{STEPS}.safetensors"
            with (
                open(os.path.join(uninterrupted(a), last), "rb") as one,
                open(os.path.join(killed(b), last), "rb") as other,
            ):
                assert one.read() == other.read()
            print("the same bits:", sorted(os.listdir(b)))
