"""A graph as text: what may be named in it, and what is refused before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fxpullback.contract.errors import VerifyError
from fxpullback.graph.text import from_text


def text(target: str, *args: Any, **kwargs: Any) -> str:
    """A graph that calls one operator on its input `x` and the arguments behind it."""
    nodes = [
        ["x", "placeholder", "x", [], {"dict": {}}],
        ["made", "call_function", target, [{"node": "x"}, *args], {"dict": kwargs}],
        ["output", "output", "output", [[{"node": "made"}]], {"dict": {}}],
    ]
    return json.dumps({"nodes": nodes, "constants": {}})


def test_an_operator_is_read_back() -> None:
    x = torch.randn(3)
    assert torch.equal(from_text(text("aten.add.Tensor", 2.0), {})(x)[0], x + 2)


@pytest.mark.parametrize("target", ["builtins.eval", "operator.call", "os.system", "aten.no_such.default", "aten"])
def test_what_is_no_operator_is_refused(target: str) -> None:
    with pytest.raises(VerifyError, match="is no operator of a graph"):
        from_text(text(target), {})


def test_all_operators_that_the_process_does_not_have_are_named() -> None:
    data = json.loads(text("mylib.first.default"))
    data["nodes"].insert(2, ["more", "call_function", "mylib.second.default", [{"node": "x"}], {"dict": {}}])
    with pytest.raises(VerifyError, match=r"uses mylib\.first\.default, mylib\.second\.default, which this process"):
        from_text(json.dumps(data), {})


@pytest.mark.parametrize(
    "target",
    ["aten.from_file.default", "aten.save.default", "aten._print.default", "aten.relu_.default", "aten.add.out"],
)
def test_an_operator_of_torch_that_acts_is_refused(target: str) -> None:
    with pytest.raises(VerifyError, match="may do more than compute tensors"):
        from_text(text(target), {})


def test_an_operator_of_a_library_is_read_back_where_it_takes_numbers_and_tensors_alone(tmp_path: Path) -> None:
    library = torch.library.Library("fxpullback_test_text", "DEF")
    try:
        library.define("shifted(Tensor x, float by) -> Tensor")
        library.define("stored(Tensor x, str path) -> Tensor")
        library.define("cleared(Tensor(a!) x) -> Tensor(a!)")
        library.impl("shifted", lambda x, by: x + by, "CompositeExplicitAutograd")
        x = torch.randn(3)
        assert torch.equal(from_text(text("fxpullback_test_text.shifted.default", 2.0), {})(x)[0], x + 2)
        for name in ("stored", "cleared"):
            with pytest.raises(VerifyError, match=f"fxpullback_test_text.{name}.default' may do more"):
                from_text(text(f"fxpullback_test_text.{name}.default", str(tmp_path / "file")), {})
    finally:
        library._destroy()
