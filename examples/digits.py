"""Train a small network on handwritten digits: NumPy computes, optimisers updates.

The data are the 1,797 real 8x8 images that come with scikit-learn; nothing is downloaded. The
network has one hidden layer; its forward and backward pass are a dozen lines of NumPy. On the way
the learning rate is lowered, and the first layer is frozen for some epochs and thawed again.

Four rules are compared on a nested dict of arrays. The last one, AdamW, then repeats its training
on one flat vector, and both must give the same bits.

    python examples/digits.py [--epochs 30] [--out docs/images/digits.png]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

import optimisers as opt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Model = dict[str, dict[str, Array]]
Rule = opt.Descent | opt.Momentum | opt.Lion | opt.AdamW

SEED = 0
HIDDEN = 64
CLASSES = 10
BATCH = 32
ETA_DROP = 5
REQUIRED_ACCURACY = 0.96

RULES: dict[str, Rule] = {
    "Descent": opt.Descent(eta=0.6),
    "Momentum": opt.Momentum(eta=0.1),
    "Lion": opt.Lion(eta=1e-3, beta=(0.9, 0.99)),
    "AdamW": opt.AdamW(eta=5e-3, lambda_=1e-2),
}
MAIN_RULE = "AdamW"


# Data ---------------------------------------------------------------------------------------------


class Digits(NamedTuple):
    """Images as rows of 64 grey values in [0, 1], and the digit each one shows."""

    x: Array
    y: Labels
    x_held_out: Array
    y_held_out: Labels


def load_digits() -> Digits:
    """Split the images 80 to 20, every digit in the same proportion, always in the same way."""
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    x, y = sklearn_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    x, x_held_out, y, y_held_out = train_test_split(x, y, test_size=0.2, stratify=y, random_state=SEED)
    return Digits(x, y, x_held_out, y_held_out)


def batches(x: Array, y: Labels, rng: np.random.Generator) -> Iterator[tuple[Array, Labels]]:
    """Yield all images once, in random order."""
    order = rng.permutation(len(x))
    for start in range(0, len(x), BATCH):
        chosen = order[start : start + BATCH]
        yield x[chosen], y[chosen]


# Network ------------------------------------------------------------------------------------------


def new_model() -> Model:
    """Return the same random parameters at every call."""
    rng = np.random.default_rng(SEED)

    def layer(inputs: int, outputs: int) -> dict[str, Array]:
        w = rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs))
        return {"w": w.astype(np.float32), "b": np.zeros(outputs, np.float32)}

    return {"l1": layer(64, HIDDEN), "l2": layer(HIDDEN, CLASSES)}


def forward(model: Model, x: Array) -> tuple[Array, Array]:
    """Return the hidden activations and the scores of the ten classes."""
    hidden = np.maximum(x @ model["l1"]["w"] + model["l1"]["b"], 0)
    return hidden, hidden @ model["l2"]["w"] + model["l2"]["b"]


def loss_and_gradients(model: Model, x: Array, y: Labels) -> tuple[float, Model]:
    """Return the mean cross-entropy in nats and its gradients, a tree of the model's shape."""
    hidden, scores = forward(model, x)
    rows = np.arange(len(y))
    scores -= scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    d_scores = np.exp(log_p)
    d_scores[rows, y] -= 1
    d_scores /= len(y)
    d_hidden = (d_scores @ model["l2"]["w"].T) * (hidden > 0)
    gradients = {
        "l1": {"w": x.T @ d_hidden, "b": d_hidden.sum(axis=0)},
        "l2": {"w": hidden.T @ d_scores, "b": d_scores.sum(axis=0)},
    }
    return -float(log_p[rows, y].mean()), gradients


def accuracy(model: Model, x: Array, y: Labels) -> float:
    _, scores = forward(model, x)
    return float((scores.argmax(axis=1) == y).mean())


# Training -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What happens when; epochs count from 0."""

    epochs: int

    @property
    def frozen(self) -> range:
        """The epochs in which the first layer rests."""
        return range(self.epochs // 3, self.epochs // 2)

    @property
    def eta_drop(self) -> int:
        """The epoch from which the learning rate is lower."""
        return self.epochs * 2 // 3


@dataclass(frozen=True)
class Learner:
    """A model, its optimiser's state, and a function that takes one step and returns the loss."""

    model: Model
    state: opt.State
    step: Callable[[Array, Labels], float]
    eta: float


@dataclass
class Run:
    """A trained model and how it got there, epoch by epoch."""

    model: Model
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)


def clipped(rule: Rule) -> opt.OptimiserChain:
    """First limit the norm of all gradients together to 1, then apply the rule."""
    return opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), rule)


def tree_learner(rule: Rule) -> Learner:
    """Learn on the nested dict: the model and its gradients go to `update_` as they are."""
    model = new_model()
    state = opt.setup(clipped(rule), model)

    def step(x: Array, y: Labels) -> float:
        loss, gradients = loss_and_gradients(model, x, y)
        opt.update_(state, model, gradients)
        return loss

    return Learner(model, state, step, rule.eta)


def flat_learner(rule: Rule) -> Learner:
    """Learn on one vector: `re(flat)` is the model again, made of views into the vector."""
    flat, re = opt.destructure(new_model())
    model = re(flat)
    state = opt.setup(clipped(rule), flat, layout=re)

    def step(x: Array, y: Labels) -> float:
        loss, gradients = loss_and_gradients(model, x, y)
        opt.update_(state, flat, re.flatten(gradients))
        return loss

    return Learner(model, state, step, rule.eta)


def train(learner: Learner, digits: Digits, plan: Plan, label: str) -> Run:
    """Take every batch of every epoch and follow the plan in between."""
    state, run = learner.state, Run(learner.model)
    rng = np.random.default_rng(SEED)
    for epoch in progress(range(plan.epochs), label):
        if epoch == plan.frozen.start:
            opt.freeze_(state["l1"])
        if epoch == plan.frozen.stop:
            opt.thaw_(state["l1"])
        if epoch == plan.eta_drop:
            opt.adjust_(state, learner.eta / ETA_DROP)
        losses = [learner.step(x, y) for x, y in batches(digits.x, digits.y, rng)]
        run.loss.append(float(np.mean(losses)))
        run.accuracy.append(accuracy(run.model, digits.x_held_out, digits.y_held_out))
    return run


def progress(epochs: range, label: str) -> Iterable[int]:
    """Show a bar if tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return epochs
    bar: Iterable[int] = tqdm(epochs, desc=f"{label:15}", unit=" epochs", ncols=80)
    return bar


def same_bits(a: Run, b: Run) -> bool:
    """Compare two runs byte by byte: every parameter, and the loss of every epoch."""
    pairs = zip(opt.trainables(a.model), opt.trainables(b.model), strict=True)
    return a.loss == b.loss and all(p.tobytes() == q.tobytes() for p, q in pairs)


# Picture ------------------------------------------------------------------------------------------

# Okabe and Ito's colours, told apart with any colour vision; the dashes tell them apart in print.
LINES: dict[str, dict[str, Any]] = {
    "Descent": {"color": "#E69F00", "linestyle": (0, (1, 1))},
    "Momentum": {"color": "#009E73", "linestyle": (0, (5, 1.5, 1, 1.5))},
    "Lion": {"color": "#CC79A7", "linestyle": (0, (4, 1.5))},
    "AdamW": {"color": "#0072B2", "linestyle": "-"},
}


def draw(runs: dict[str, Run], plan: Plan, path: Path) -> None:
    """Write the learning curves of all runs as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        layout = ConstrainedLayoutEngine(wspace=0.06)
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0), layout=layout)
        epochs = np.arange(1, plan.epochs + 1)
        for name, run in runs.items():
            left.plot(epochs, 100 * np.array(run.accuracy), label=name, linewidth=1.8, **LINES[name])
            right.plot(epochs, run.loss, linewidth=1.8, **LINES[name])
        left.set(title="Held-out accuracy", xlabel="epoch", ylabel="correct (%)", ylim=(85, 100))
        right.set(title="Training loss", xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
        right.yaxis.set_major_formatter("{x:g}")
        for axes, height, side in ((left, 0.03, "bottom"), (right, 0.98, "top")):
            mark_plan(axes, plan, height, side)
        figure.legend(loc="outside upper center", ncols=len(runs), frameon=False, handlelength=3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160, metadata={"Software": None})
        plt.close(figure)


def mark_plan(axes: Axes, plan: Plan, height: float, side: str) -> None:
    """Shade the epochs in which the first layer rests and mark where eta drops."""
    where: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "fontsize": 8.5, "color": "0.35", "va": side}
    axes.axvspan(plan.frozen.start + 0.5, plan.frozen.stop + 0.5, color="0.92", zorder=0)
    middle = (plan.frozen.start + plan.frozen.stop + 1) / 2
    axes.text(middle, height, "first layer\nfrozen", ha="center", **where)
    axes.axvline(plan.eta_drop + 0.5, color="0.6", linewidth=1, linestyle="--", zorder=0)
    axes.text(plan.eta_drop + 0.8, height, f"η ÷ {ETA_DROP}", ha="left", **where)


# Program ------------------------------------------------------------------------------------------


def report(runs: dict[str, Run]) -> None:
    """Print one line per rule."""
    print("rule         eta   training loss   held-out accuracy")
    for name, run in runs.items():
        print(f"{name:8} {RULES[name].eta:7g} {run.loss[-1]:15.4f} {run.accuracy[-1]:19.4f}")


def arguments() -> argparse.Namespace:
    default_out = Path(__file__).resolve().parents[1] / "docs" / "images" / "digits.png"
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits.")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training images (default: 30)")
    parser.add_argument("--out", type=Path, default=default_out, help="where the picture of the curves goes")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    digits, plan = load_digits(), Plan(args.epochs)

    runs = {name: train(tree_learner(rule), digits, plan, name) for name, rule in RULES.items()}
    flat_run = train(flat_learner(RULES[MAIN_RULE]), digits, plan, f"{MAIN_RULE}, flat")

    report(runs)
    draw(runs, plan, args.out)
    print(f"learning curves: {args.out}")

    final = runs[MAIN_RULE].accuracy[-1]
    accurate, agree = final >= REQUIRED_ACCURACY, same_bits(runs[MAIN_RULE], flat_run)
    print(f"held-out accuracy {final:.4f}" + ("" if accurate else f", below {REQUIRED_ACCURACY}"))
    print("tree and flat agree bit for bit" if agree else "tree and flat DIFFER")
    return 0 if accurate and agree else 1


if __name__ == "__main__":
    sys.exit(main())
