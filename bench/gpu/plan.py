"""What is measured on a GPU: every case with its arrays, rule, memory to move, peers and goals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cases import ADAM, Case, power
from specs import Spec

MANY, LARGE = 1000, 10**8
CLIPPED: Spec = [("ClipNorm", {"omega": 1.0, "scope": "global"}), ADAM]
DECAYED: Spec = [("WeightDecay", {}), ADAM]

COPY, OURS, INTERPRETED = "copy", "ours", "interpreted"
FUSED, FOREACH, OPTAX, CUPY = "torch_fused", "torch_foreach", "optax", "cupy"
LABELS = {
    COPY: "copy ceiling",
    OURS: "optimisers",
    INTERPRETED: "interpreted",
    FUSED: "torch fused",
    FOREACH: "torch foreach",
    OPTAX: "optax, jit",
    CUPY: "CuPy kernel",
}
Times = dict[str, float]  # a case's microseconds, by peer


@dataclass(frozen=True)
class DeviceGoal:
    """`measured`, from the times of the peers it needs, is at least `least`, or at most `most`."""

    text: str
    needs: tuple[str, ...]
    measured: Callable[[Times], float]
    least: float = 0.0
    most: float = float("inf")

    def met(self, times: Times) -> bool:
        return self.least <= self.measured(times) <= self.most


def of_the_ceiling(share: float) -> DeviceGoal:
    return DeviceGoal(f"≥ {share:.0%} of a copy's speed", (COPY, OURS), lambda t: t[COPY] / t[OURS], least=share)


def under(us: float) -> DeviceGoal:
    return DeviceGoal(f"≤ {us:g} µs", (OURS,), lambda t: t[OURS], most=us)


def faster(peer: str, times: float) -> DeviceGoal:
    return DeviceGoal(f"≥ {times:g} × {LABELS[peer]}", (peer, OURS), lambda t: t[peer] / t[OURS], least=times)


AS_COMPILED = DeviceGoal(
    "interpreted ≥ 95% of its template", (INTERPRETED, OURS), lambda t: t[OURS] / t[INTERPRETED], least=0.95
)


@dataclass(frozen=True)
class DeviceCase(Case):
    """A case, and how it is timed: "device" (events around calls), "graph" (replayed) or "wall" (the host's clock)."""

    group: str = "gpu"
    title: str = ""
    shapes: tuple[tuple[int, ...], ...] = ()
    bare: str = ""
    bytes: int = 28
    peers: tuple[str, ...] = ()
    how: str = "device"
    goals: tuple[DeviceGoal, ...] = field(default=())  # type: ignore[assignment]


def all_cases(large: int = LARGE, many: int = MANY) -> list[DeviceCase]:
    """The cases; with smaller sizes for a run that only shows that everything works."""
    flat, leaves = ((large,),), ((many,),) * many
    torch = (FUSED, FOREACH)
    n = f", {power(large)}"
    speed = of_the_ceiling
    return [
        DeviceCase(
            title="Adam" + n, shapes=flat, peers=(COPY, OURS, INTERPRETED, *torch, OPTAX, CUPY),
            goals=(speed(0.97), faster(FUSED, 1.05), AS_COMPILED),
        ),
        DeviceCase(
            title="Momentum" + n, shapes=flat, bytes=20, rule=("Momentum", {}),
            peers=(COPY, OURS, INTERPRETED, *torch, OPTAX), goals=(speed(0.97), AS_COMPILED),
        ),
        DeviceCase(
            title="Lion" + n, shapes=flat, bytes=20, rule=("Lion", {}), peers=(COPY, OURS, INTERPRETED, OPTAX),
            goals=(speed(0.97), AS_COMPILED),
        ),
        DeviceCase(
            title="Adam, bfloat16 with float32 moments" + n, shapes=flat, bytes=22, dtype="bfloat16",
            peers=(COPY, OURS, INTERPRETED, FUSED), goals=(speed(0.95), AS_COMPILED),
        ),
        DeviceCase(
            title="global clip, Adam" + n, shapes=flat, bytes=32, rule=CLIPPED,
            peers=(COPY, OURS, INTERPRETED, *torch, OPTAX),
            goals=(speed(0.95), faster(FUSED, 1.3), AS_COMPILED),
        ),
        DeviceCase(
            title="decay, Adam" + n, shapes=flat, rule=DECAYED, peers=(COPY, OURS, INTERPRETED, *torch, OPTAX),
            goals=(AS_COMPILED,),
        ),
        DeviceCase(
            title=f"Adam, {many:,} × {many:,}, in a graph", shapes=leaves, how="graph", peers=(COPY, OURS),
            goals=(under(10),),
        ),
        DeviceCase(
            title=f"Adam, {many:,} × {many:,}, eager", shapes=leaves, how="wall",
            peers=(COPY, OURS, *torch, OPTAX), goals=(under(25), faster(FUSED, 5)),
        ),
    ]  # fmt: skip
