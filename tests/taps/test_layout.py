"""Which axis of a value is what: told by the walk, and told by what changes when one place of the picture does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from fxpullback.capture import capture
from fxpullback.taps.axes import BATCH, FEATURES, Atom, Axis, Layout, axis, concatenated, narrowed, reshaped
from fxpullback.taps.layout import layouts
from fxpullback.taps.plan import Plan, plan_of
from tests.taps.nets import Vision, Windows


class Values(fx.Interpreter):
    """All tensors of a run by the node that made them."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.found: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.found[n] = result
        return result


def plans(model: nn.Module, x: Tensor) -> tuple[fx.GraphModule, dict[fx.Node, Plan]]:
    gm = capture(model.eval(), x)
    found = {}
    for node, layout in layouts(gm.graph).items():
        if layout and isinstance(layout[0], Axis) and node.op == "call_function":
            plan = plan_of(layout)
            if plan is not None:
                found[node] = plan
    return gm, found


def changes(gm: fx.GraphModule, plan: Plan, node: fx.Node, x: Tensor, row: int, column: int, patch: int) -> set[object]:
    """The places of a map that change with one patch of the second picture."""
    other = x.clone()
    other[1, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] += 1
    runs = []
    for picture in (x, other):
        run = Values(gm)
        run.run(picture)
        runs.append(run.found[node])
    difference = plan((runs[0] - runs[1]).abs(), torch.ones_like(runs[0]))
    return {tuple(place) for place in difference.nonzero().tolist()}


def test_a_patch_of_the_picture_changes_its_own_place_and_no_other() -> None:
    """Through windows, shifts and merged patches: at every value that is said to lie on a grid."""
    x = torch.randn(3, 3, 16, 24)
    gm, found = plans(Windows(), x)
    grids = {plan.grid for plan in found.values()}
    assert grids == {(8, 12), (4, 6)}
    for node, plan in found.items():
        patch = 16 // plan.grid[0] if plan.grid[0] is not None else 0
        row, column = (3, 4) if plan.grid == (4, 6) else (5, 9)
        if node.target is torch.ops.aten.roll.default:
            continue
        assert changes(gm, plan, node, x, row, column, patch) <= {(1, row, column)}, node.name


def test_what_is_shifted_is_said_to_lie_nowhere() -> None:
    gm, found = plans(Windows(), torch.randn(2, 3, 16, 24))
    rolled = [n for n in gm.graph.nodes if n.target is torch.ops.aten.roll.default]
    assert len(rolled) == 2
    assert not [n for n in rolled if n in found]


@pytest.mark.parametrize(("front", "back"), [(0, 0), (1, 0), (2, 3), (0, 1)])
def test_tokens_around_the_places_are_left_out(front: int, back: int) -> None:
    x = torch.randn(2, 3, 12, 16)
    gm, found = plans(Vision(front, back), x)
    places = next(n for n in gm.graph.nodes if n.target is torch.ops.aten.add.Tensor)  # + self.place
    assert found[places].grid == (3, 4)
    assert changes(gm, found[places], places, x, 2, 1, 4) == {(1, 2, 1)}


def test_a_series_and_a_sequence() -> None:
    series = nn.Sequential(nn.Conv1d(2, 4, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2))
    assert {plan.grid for plan in plans(series, torch.randn(2, 2, 9))[1].values()} == {(9,)}

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(torch.relu(self.first(x)).mean(1))
            return result

    assert {plan.grid for plan in plans(Tokens(), torch.randn(2, 7, 6))[1].values()} == {(7,)}


def test_features_alone_have_no_grid() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    assert not plans(model, torch.randn(2, 6))[1]


def picture(height: int, width: int) -> Layout:
    return (axis(7, BATCH), axis(height, 0), axis(width, 1), axis(5, FEATURES))


def test_reshapes_split_and_join() -> None:
    cut = reshaped(picture(6, 4), (7, 3, 2, 2, 2, 5))
    assert cut is not None
    assert [one.atoms for one in cut[1:5]] == [(Atom(0, 3, 2),), (Atom(0, 2, 1),), (Atom(1, 2, 2),), (Atom(1, 2, 1),)]
    windows = tuple(cut[i] for i in (0, 1, 3, 2, 4, 5))
    flat = reshaped(windows, (42, 4, 5))
    assert flat is not None
    assert plan_of(flat) is not None
    assert reshaped(flat, (7, 3, 2, 2, 2, 5)) == windows
    assert reshaped(picture(6, 4), (7, 4, 6, 5)) is None  # cuts through rows


def test_a_map_of_windows_is_put_together_again() -> None:
    value = torch.arange(7 * 6 * 4 * 5.0).reshape(7, 6, 4, 5)
    windows = value.reshape(7, 3, 2, 2, 2, 5).permute(0, 1, 3, 2, 4, 5).reshape(42, 4, 5)
    layout = reshaped(
        tuple((reshaped(picture(6, 4), (7, 3, 2, 2, 2, 5)) or ())[i] for i in (0, 1, 3, 2, 4, 5)), (42, 4, 5)
    )
    plan = plan_of(layout or ())
    assert plan is not None
    assert torch.equal(plan(windows, torch.ones_like(windows)), value.sum(3))
    assert Plan.from_dict(plan.to_dict()) == plan


def test_concatenations_and_parts() -> None:
    tokens = (axis(7, BATCH), Axis(12, (Atom(0, 3), Atom(1, 4))), axis(5, FEATURES))
    both = concatenated([None, tokens, None], [(7, 2, 5), (7, 12, 5), (7, 1, 5)], 1)
    assert both is not None
    assert both[1] == Axis(15, (Atom(0, 3), Atom(1, 4)), 2)
    assert narrowed(both[1], 2, 12) == tokens[1]
    assert not narrowed(both[1], 0, 5).known
    twice = concatenated([tokens, tokens], [(7, 12, 5), (7, 12, 5)], 1)
    assert twice is not None
    assert plan_of(twice) is None
