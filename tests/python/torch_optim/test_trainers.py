"""optimisers.torch in the hands of transformers, Lightning and accelerate: trained, killed, resumed, the same bits."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from killed_training import KILLED, SAVED, STEPS

WHY = "is not installed; `make test` installs it where it can"
NEEDED = {
    "accelerate": ["accelerate"],
    "trainer": ["transformers", "accelerate"],
    "lightning": ["lightning"],
    "lightning_manual": ["lightning"],
}


def losses(trainer, folder, way, library="optimisers.torch"):
    """The losses by step, with their bits, of a run in a process of its own."""
    script = Path(__file__).with_name("killed_training.py")
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(script), trainer, str(folder), way, library]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (-signal.SIGKILL if way == "killed" else 0), done.stderr[-3000:]
    lines = (folder / f"{way}.txt").read_text().splitlines()
    return {int(step): float.fromhex(loss) for step, loss in map(str.split, lines)}


@pytest.mark.parametrize("trainer", NEEDED)
def test_a_killed_run_that_is_resumed_has_the_losses_of_the_whole_one(trainer, tmp_path):
    for name in NEEDED[trainer]:
        pytest.importorskip(name, reason=f"{name} {WHY}")
    whole = losses(trainer, tmp_path / "whole", "whole")
    assert list(whole) == list(range(1, STEPS + 1)) and whole[STEPS] < whole[1]
    killed = losses(trainer, tmp_path / "ours", "killed")
    assert killed == {step: whole[step] for step in range(1, KILLED + 1)}
    resumed = losses(trainer, tmp_path / "ours", "resumed")
    assert resumed == {step: whole[step] for step in range(SAVED + 1, STEPS + 1)}
    theirs = losses(trainer, tmp_path / "torch", "whole", "torch.optim")
    assert theirs == pytest.approx(whole, rel=1e-4)
