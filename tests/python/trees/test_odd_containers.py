"""Mappings and Sequences that do not hold what they promise."""

from typing import Any

import pytest
from containers import Frozen, Row, ones

import optimisers as opt


class Broken(Frozen):
    def __getitem__(self, key: Any) -> Any:
        raise KeyError(f"no {key}")


class Lying(Row):
    def __len__(self) -> int:
        return 3


class Endless(Row):
    def __getitem__(self, i: Any) -> Any:
        if i:
            raise IndexError
        return Endless([0])


class Copying(Frozen):
    def __getitem__(self, key: Any) -> Any:
        return self._items[key].copy()


@pytest.mark.parametrize(
    "part, message",
    [
        (Broken({"w": 1}), r'"a\.part" is a Broken whose children cannot be read: KeyError\(.no w.\)'),
        (Lying([ones(1)]), r'"a\.part" is a Lying .*its length is 3, and it has 1 items'),
        (Endless([0]), r'"a\.part\.0.* is an Endless that has containers in containers without end'),
        (Copying({"w": ones(2)}), r'"a\.part\.w" is a new array each time the Copying is asked for it'),
    ],
)
def test_a_container_that_does_not_hold_is_refused_with_the_path(part, message):
    with pytest.raises(ValueError, match=f"setup: model at {message}"):
        opt.setup(opt.Adam(), {"a": {"part": part}})


def test_a_gradient_that_cannot_be_read_changes_nothing():
    model = {"a": ones(1), "part": {"w": ones(2)}}
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(ValueError, match=r'update: gradient at "part" is a Broken whose children') as raised:
        opt.update_(state, model, {"a": ones(1), "part": Broken({"w": 1})})
    assert isinstance(raised.value.__cause__, KeyError) and model["a"].sum() == 1

    class Interrupted(Frozen):
        def __getitem__(self, key: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opt.update_(state, model, {"a": ones(1), "part": Interrupted({"w": 1})})
    assert model["a"].sum() == 1
