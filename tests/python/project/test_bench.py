"""The benchmark's own plumbing: it checks before it times, and writes JSON, page and pictures. No speed is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench"
SETTINGS = ("--only", "tiny", "--rounds", "2", "--budget", "0.001", "--threads", "2")


def run_bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Without optax, whose place a module takes that cannot be imported."""
    (folder / "stand_in").mkdir(exist_ok=True)
    (folder / "stand_in" / "optax.py").write_text('raise ImportError("left out for the test")\n')
    paths = [str(folder / "stand_in"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    command = [sys.executable, str(BENCH / "run.py"), *arguments, "--build", str(folder / "build")]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two tiny cases gave."""
    folder = tmp_path_factory.mktemp("bench")
    out, page = ("--out", str(folder / "results.json")), ("--page", str(folder / "page.md"))
    run = run_bench(folder, *SETTINGS, "--peers", "bare,hand,ours,optax,numpy", *out, *page)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture
def data(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_every_figure_passed_the_check_first(data: dict) -> None:
    measured = [r for r in data["records"] if "us" in r]
    assert {(r["title"], r["peer"]) for r in measured} == {
        ("vector", "bare"), ("vector", "hand"), ("vector", "ours"), ("vector", "numpy"),
        ("tree", "bare"), ("tree", "hand"), ("tree", "ours"),
    }  # fmt: skip
    for r in measured:
        assert r["check"] == ("nothing to check" if r["peer"] == "bare" else "reference")
        assert 0 < r["q1"] <= r["us"] <= r["q3"]


def test_says_which_peers_are_missing(data: dict, folder: Path) -> None:
    assert list(data["missing_peers"]) == ["optax"]
    assert "left out for the test" in data["missing_peers"]["optax"]
    assert "left out: optax, jit" in (folder / "page.md").read_text()


def test_records_machine_versions_and_noise(data: dict) -> None:
    assert data["machine"]["processors"] >= 1
    assert data["machine"]["processor"]
    assert {"optimisers", "numpy"} <= data["versions"].keys()
    assert data["partial"]
    assert data["steal_percent"] >= 0
    assert data["imports"]["installed_bytes"] > 0


def test_page_has_tables_and_pictures(folder: Path) -> None:
    page = (folder / "page.md").read_text()
    assert "| vector | 1 | 28 |" in page
    assert "shortened run" in page
    assert "**missed**" in page
    assert "$" not in page
    for name in ("step_time.png", "peers.png"):
        assert f"(images/{name})" in page
        picture = (folder / "images" / name).read_bytes()
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(picture) > 10_000


def test_page_can_be_written_again_from_the_results(folder: Path) -> None:
    again = folder / "again" / "page.md"
    run = run_bench(folder, "--report", str(folder / "results.json"), "--page", str(again))
    assert run.returncode == 0, run.stderr
    assert again.read_text() == (folder / "page.md").read_text()


def test_unknown_names_are_refused(folder: Path) -> None:
    run = run_bench(folder, "--only", "no such case")
    assert run.returncode == 1
    assert "no such case" in run.stderr


def test_wrong_result_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer off by one part in a hundred of its step does not get as far as the clock."""
    monkeypatch.syspath_prepend(str(BENCH))
    import cases
    import check
    from peers.face import Step

    class Wrong:
        def build(self, case, x, dx):
            def step() -> None:
                for a, g in zip(x, dx, strict=True):
                    a -= 0.101 * g

            return Step(step, lambda: x)

    descent = next(case for case in cases.all_cases() if case.id == "rule: Descent")
    with pytest.raises(check.WrongResultError, match="rule: Descent"):
        check.check(Wrong(), descent)


# ------------------------------------------------------------------------------------------------- on a GPU


def run_gpu_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "gpu" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the benchmark for GPUs gives on the CPU with tiny arrays."""
    pytest.importorskip("torch", reason="the benchmark for GPUs holds its arrays in torch tensors")
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    run = run_gpu_bench("--dry-run", "--out", str(out))
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(out.read_text())


def test_gpu_benchmark_runs_end_to_end(dry_run: dict) -> None:
    ours = [r for r in dry_run["records"] if r["peer"] in ("ours", "interpreted")]
    assert {r["check"] for r in ours} == {"reference"}
    assert all(0 < r["q1"] <= r["us"] <= r["q3"] for r in ours)
    assert {r["case"] for r in ours} == {r["case"] for r in dry_run["records"]}
    assert {r["peer"] for r in dry_run["records"]} >= {"copy", "torch_fused", "torch_foreach"}
    assert dry_run["compared_with_cpu"] > 80
    assert {"optimisers", "torch"} <= dry_run["versions"].keys()
    assert dry_run["goals"]


def test_gpu_section_of_the_page(dry_run: dict, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from gpu import report

    text = report.section(dry_run)
    assert "| global clip, Adam, 10³ | 32 | **" in text
    assert f"of {len(dry_run['goals'])} goals are met" in text
    assert report.newest(tmp_path) is None
    (tmp_path / "gpu-2030-01-01.json").write_text(json.dumps(dry_run))
    assert report.newest(tmp_path) is None  # a dry run measures nothing
    whole = json.dumps(dry_run | {"dry_run": False})
    (tmp_path / "gpu-2030-01-02.json").write_text(whole)
    assert report.newest(tmp_path)["date"] == dry_run["date"]
    page = (folder / "page.md").read_text()
    assert (report.NOTHING_YET in page) == (report.newest() is None)


def test_gpu_benchmark_needs_a_gpu() -> None:
    torch = pytest.importorskip("torch", reason="the benchmark for GPUs holds its arrays in torch tensors")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    run = run_gpu_bench()
    assert run.returncode == 1
    assert "no CUDA device" in run.stderr


def test_gpu_benchmark_names_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """One element of one rule that comes out otherwise, and one rule that does not come out."""
    pytest.importorskip("torch", reason="the benchmark for GPUs holds its arrays in torch tensors")
    monkeypatch.syspath_prepend(str(BENCH))
    from gpu import bits

    right = bits.after

    def wrong(spec, dtype, device, largest):
        x = right(spec, dtype, "cpu", largest)
        if device == "device" and dtype == "float16":
            x[0][-1] *= 1.001
        if device == "device" and dtype == "float64":
            raise RuntimeError("no such kernel")
        return x

    monkeypatch.setattr(bits, "after", wrong)
    monkeypatch.setattr(bits, "specs", lambda: [("Adam", {})])
    compared, wrong = bits.check_bits("device", 1003)
    assert compared == 3 and len(wrong) == 2
    assert "Adam, float64: RuntimeError: no such kernel" in wrong
    assert any(text.startswith("Adam, float16: 1 of 1003") for text in wrong)


def test_gpu_benchmark_goes_on_without_a_peer_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the benchmark for GPUs holds its arrays in torch tensors")
    monkeypatch.syspath_prepend(str(BENCH))
    from gpu import plan, run, timing

    settings = timing.Settings("cpu", 2, 1e-4)
    case = next(c for c in plan.all_cases(1000, 10) if c.title.startswith("Momentum"))
    peers, _ = run.available([case], "cpu")
    visit = timing.Visited.visit

    def failing(self: timing.Visited) -> None:
        if self.peer == plan.FOREACH and self.rounds:
            raise MemoryError("no room")
        visit(self)

    monkeypatch.setattr(timing.Visited, "visit", failing)
    records = {r["peer"]: r for r in run.measured_case(case, peers, settings)}
    assert records[plan.FOREACH]["error"] == "MemoryError: no room"
    assert {"us"} <= records[plan.OURS].keys() & records[plan.FUSED].keys()
    out = tmp_path / "there" / "x.json"
    run.written({"records": [*records.values()]}, out)
    assert json.loads(out.read_text())["records"] and [*out.parent.iterdir()] == [out]


def test_steps_of_torch_optimisers_are_told_beside_torchs() -> None:
    pytest.importorskip("torch")
    command = [sys.executable, str(BENCH / "torch_steps.py"), "--only", "1 × 10", "--seconds", "0.01"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "optimisers.torch" in run.stdout and "torch fused" in run.stdout and "torch foreach" in run.stdout
