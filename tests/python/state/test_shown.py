"""How states show themselves: text, HTML, keys and completions."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

import optimisers as opt

CHAIN = opt.OptimiserChain(
    opt.ClipNorm(1.0, scope="global"), opt.WeightDecay(1e-4), opt.AccumGrad(4), opt.Adam(beta=(0.8, 0.99))
)


class Parsed(HTMLParser):
    """The texts of a page, its tags, and whether each tag is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, "f4")


def model() -> Any:
    w = ones(3, 4)
    return {"enc": [w, {"x": w.T, "y": ones(2)}], "dec": {"keys": ones(3), "n": 3}, "name": "text"}


def test_a_long_rule_stands_once_behind_the_leaves() -> None:
    state = opt.setup(CHAIN, [ones(2) for _ in range(100)])
    opt.freeze_(state[0])
    text = str(state)
    lines = text.splitlines()
    assert text.count("ClipNorm") == text.count("Adam") == 1 and max(map(len, lines)) <= 70
    assert lines[1] == "  0   (2,)  float32  24 B  rule 1  frozen" and lines[2] == "  1   (2,)  float32  24 B  rule 1"
    assert lines[-6:] == [
        "  rule 1 = OptimiserChain(",
        "    ClipNorm(omega=1.0, p=2.0, throw=True, scope='global'),",
        "    WeightDecay(lambda_=0.0001),",
        "    AccumGrad(n=4),",
        "    Adam(eta=0.001, beta=(0.8, 0.99), epsilon=1e-08),",
        "  )",
    ]


def test_each_long_rule_has_its_number_and_short_ones_stand_in_their_lines() -> None:
    tree = {"a": CHAIN, "b": opt.Descent(0.5), "c": opt.adjust(CHAIN, 0.5), "d": CHAIN}
    text = str(opt.setup(tree, {key: ones(1) for key in tree}))
    assert [line.split("  ")[-1].strip() for line in text.splitlines()[1:5]] == [
        "rule 1",
        "Descent(eta=0.5)",
        "rule 2",
        "rule 1",
    ]
    assert text.index("rule 1 = ") < text.index("eta=0.001") < text.index("rule 2 = ") < text.index("eta=0.5, beta")
    nested = opt.OptimiserChain(CHAIN, opt.OptimiserChain(opt.Descent(0.1)))
    shown = str(opt.setup(nested, [ones(1)]))
    assert eval(shown.partition("rule 1 = ")[2], vars(opt)) == nested, "it is written as Python"


def test_html_has_a_row_a_leaf_and_each_rule_once() -> None:
    state = opt.setup(CHAIN, model())
    opt.freeze_(state["dec"])
    page = Parsed(state._repr_html_())
    assert page.tags.count("details") == 4 and page.tags.count("tr") == 4
    for text in (
        "enc.0",
        "enc.1.x",
        "enc.1.y",
        "dec.keys",
        "(3, 4)",
        "float32",
        "frozen",
        "tied to enc.0",
        "enc (list)",
    ):
        assert page.texts.count(text) >= 1 or any(text in t for t in page.texts), text
    assert "".join(page.texts).count("ClipNorm") == 1 and page.texts.count("rule 1") == 4
    assert page.texts.count("frozen") == 1 and "24 B" in page.texts


def test_html_escapes_everything() -> None:
    class Evil(opt.Rule):
        def __repr__(self) -> str:
            return "<script>rule</script>"

        def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
            return state, dx

    class Key:
        def __str__(self) -> str:
            return "<script>key</script>"

    model = {"<script>a</script>": {"<b>": ones(1)}, Key(): [ones(1)], "\udcff": [ones(1)], "a&b": ones(1)}
    state = opt.setup(Evil(), model)
    for shown in (state, state["a&b"], state["<script>a</script>"]):
        text = shown._repr_html_()
        assert "<script" not in text and "<b>" not in text and text.encode()
        assert "&lt;script&gt;rule" in text
    assert {"<script>key</script> (list)"[:19]} <= {t[:19] for t in Parsed(state._repr_html_()).texts}


@pytest.mark.parametrize("count, rows", [(1000, 1000), (1500, 1000)])
def test_html_of_large_trees_is_bounded(count: int, rows: int) -> None:
    page = Parsed(opt.setup(opt.Descent(), [[ones(1), ones(1)] for _ in range(count // 2)])._repr_html_())
    assert page.tags.count("tr") == rows
    assert any("500 more leaves" in t for t in page.texts) == (count == 1500)


def test_html_of_deep_trees_and_of_parts() -> None:
    deep: Any = ones(1)
    for _ in range(3000):
        deep = [deep]
    page = Parsed(opt.setup(opt.Descent(), deep)._repr_html_())
    assert page.tags.count("tr") == 1 and page.tags.count("details") < 40
    mark = opt.Marker("half")
    state = opt.setup({mark: opt.Descent(), ...: opt.Momentum()}, {"a": mark(ones(1)), "b": ones(1)})
    assert Parsed(state.marked(mark)._repr_html_()).tags.count("tr") == 1
    assert "the model" in Parsed(opt.setup(opt.Adam(), ones(2))._repr_html_()).texts
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    assert Parsed(opt.setup(opt.Adam(), net)._repr_html_()).texts.count("1.bias") == 1


def test_keys_values_and_items_are_the_model_s() -> None:
    state = opt.setup(opt.Descent(), model())
    assert state.keys() == ["enc", "dec", "name"] == list(state) and state["enc"].keys() == [0, 1]
    assert state.values() == [state["enc"], state["dec"], None] and state["enc"].values()[0] is state["enc"][0]
    assert dict(state) == dict(state.items()) and [key for key, _ in state["enc"].items()] == [0, 1]
    assert state["dec"]["keys"].shape == (3,) and callable(state["dec"].keys)
    assert state._ipython_key_completions_() == state.keys() and "enc" in dir(state)
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    tree = opt.setup(opt.Descent(), net)
    assert tree.keys() == ["0", "1"] and tree.values() == [tree[0], tree[1]] and tree[0].keys() == ["weight", "bias"]
    for part in (state, state["enc"], tree):
        assert all(part[key] is value for key, value in part.items())


def test_the_package_shows_its_names_only() -> None:
    shown = {name for name in dir(opt) if not name.startswith("_")}
    assert shown == {name for name in opt.__all__ if not name.startswith("_")} and "schedules" in shown
