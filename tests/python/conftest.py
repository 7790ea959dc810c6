"""Makes the reference and the helpers importable, and every test start from one thread setting."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import optimisers as opt  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes seconds or much memory")


@pytest.fixture
def threads():
    """The number of threads as it was, restored after the test."""
    before = opt.get_num_threads()
    yield
    opt.set_num_threads(before)
