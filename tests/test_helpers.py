"""What the tests share is right: a network compiled with other options is what `compile` makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx

import fxpullback
from fxpullback import EXACT, REFERENCE, SEMANTIC, Ascent, Double
from fxpullback.graph.float64 import in_float64
from tests.helpers import draw, variant
from tests.networks import SIZE, compiled, network

OTHER_OPTIONS: dict[str, dict[str, Any]] = {
    "rules": {"rules": REFERENCE},
    "program": {"program": Double(alpha=2.0), "target": "contrast"},
    "lowering": {"without": ["carried-factors", "flipped-convolution"]},
    "all": {"rules": EXACT, "program": Ascent(steps=1), "target": "top1", "without": ["late-zeros"]},
}


def assert_same_graph(found: fx.GraphModule, wanted: fx.GraphModule) -> None:
    """The same operators of the same arguments, constants to the last bit; what constants are called may differ."""
    same = dict(zip(found.graph.nodes, wanted.graph.nodes, strict=True))
    for node, other in same.items():
        if node.op == "get_attr":
            assert torch.equal(getattr(found, str(node.target)), getattr(wanted, str(other.target)))
        else:
            assert (node.op, node.target, node.name) == (other.op, other.target, other.name)
            assert fx.map_arg((node.args, node.kwargs), same.__getitem__) == (other.args, other.kwargs)
    assert found.meta.keys() == wanted.meta.keys()


@pytest.mark.parametrize("options", OTHER_OPTIONS)
@pytest.mark.parametrize("name", ["mobile", "transformer"])
def test_a_variant_is_what_compile_makes(name: str, options: str) -> None:
    x, given = torch.zeros(1, *SIZE).double(), OTHER_OPTIONS[options]
    made = variant(compiled(name), **given)
    direct = fxpullback.compile(network(name), x, **{"target": "cotangent", "rules": SEMANTIC, **given})
    for stage in ("captured", "rewritten", "folded", "step", "graph"):
        assert_same_graph(getattr(made, stage), getattr(direct, stage))
    assert made.ledger == direct.ledger
    assert (made.rules, made.program, made.target) == (direct.rules, direct.program, direct.target)


@pytest.mark.parametrize("name", ["convolutional", "mobile", "transformer"])
def test_a_variant_in_float64_has_the_constants_of_its_own(name: str) -> None:
    """A constant may not be called as one of an earlier stage was: its exact value would be taken for its own."""
    pb = compiled(name, torch.float32)
    x, u = draw(2, *SIZE), torch.eye(pb.classes, dtype=torch.float64)[:2]
    wanted = in_float64(pb.graph)(x, u)
    for found, same in zip(in_float64(variant(pb, target="index").graph)(x, torch.tensor([0, 1])), wanted, strict=True):
        assert torch.equal(found, same)
