"""Which values of a network are tapped: those of modules that are named, or a choice made from the graph alone.

The choice looks at the values that the class depends on and that lie on a grid:

- In a network whose resolution falls, the last value at each of the two coarsest grids.
- In one whose resolution stays, as a transformer's, the stream behind every block but the first and the last.
- Of words that were looked up, the stream behind the first block, where each place still stands for its word: deeper
  ones hold what the words around say, and the last one often all of it at the place that is read out.

A value that every path from the input to the logits passes is preferred: its contributions are all of the logit but
what the layers behind it add of themselves.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor, fx

from fxpullback.contract.errors import TapError
from fxpullback.graph.ir import (
    GETITEM,
    LAID_OUT,
    PART,
    aten,
    calls,
    depends_on,
    explained,
    input_nodes,
    is_call,
    is_float_tensor,
    is_size,
    module_path,
    outputs,
)
from fxpullback.graph.operators import OPERATORS, OperatorTable, Trait
from fxpullback.taps.axes import Axis
from fxpullback.taps.layout import Sizes, layouts
from fxpullback.taps.plan import Plan, extents_of, plan_of

BLOCKS = 3
"""How many residual blocks, all of them on one grid, make a network one whose resolution stays."""


@dataclass(frozen=True)
class Chosen:
    """A value of the captured graph that is tapped.

    Attributes:
        node: the value.
        name: what it is called: the module that was named, or the one that made it.
        plan: how it becomes a map.
        of: the one of several explained inputs whose places it has; empty where one is explained.
    """

    node: fx.Node
    name: str
    plan: Plan
    of: str = ""


class Values:
    """The values of a captured graph between the input and the logits.

    Args:
        graph: a captured graph.
        reached: names of the operators that a cotangent reaches; the others hold something constant.
        operators: what is true of every operator.
        of: one of several explained inputs: values that depend on it alone are looked at.
    """

    def __init__(
        self, graph: fx.Graph, reached: Collection[str], operators: OperatorTable = OPERATORS, of: str = ""
    ) -> None:
        self.of = of
        self.graph, self.reached, self.operators = graph, reached, operators
        sizes = Sizes.of(graph)
        found = layouts(graph, operators, sizes)
        alone = _of_part(graph, of)
        self.between = [n for n in _between(graph) if n in found and (alone is None or n in alone)]
        self.through = _passed_by_all(self.between)
        self.plans: dict[fx.Node, Plan] = {}
        self.grids: dict[fx.Node, tuple[int, ...]] = {}
        for node in self.between:
            layout = found[node]
            if node.op == "call_function" and layout and isinstance(layout[0], Axis):
                plan = plan_of(layout, sizes.free)
                grid = extents_of(layout)
                if plan is not None and grid is not None and math.prod(grid) > 1:
                    self.plans[node], self.grids[node] = plan, grid
        products = [n for n in self.between if Trait.CONTRACTION in operators.at(n)]
        self.computed = depends_on(graph, products)  # what lies in front of the first is the picture itself

    @property
    def is_of_words(self) -> bool:
        """Whether the places are those of words that were looked up."""
        source = parts_of(self.graph)[self.of] if self.of else explained(self.graph)
        return source.meta.get(LAID_OUT) == "embedded"

    def candidates(self) -> list[fx.Node]:
        """Values on a grid, computed by the network, that a cotangent reaches; what only moves numbers is none."""
        return [n for n in self.plans if n in self.computed and self.is_live(n) and self._computes(n)]

    def is_live(self, node: fx.Node) -> bool:
        """Whether a cotangent reaches it."""
        return node.name in self.reached

    def _computes(self, node: fx.Node) -> bool:
        moves = Trait.MOVES in self.operators.at(node)
        return not moves or is_call(node, aten.cat.default) or node.target is GETITEM


def automatic(values: Values, words: bool = False) -> list[Chosen]:
    """The automatic choice, for looked-up words or anything else; nothing where no value lies on a grid."""
    found = values.candidates()
    main = [n for n in found if n in values.through]
    sums = [n for n in main if _is_sum(n, values, words)]
    blocks = [list(group)[-1] for _, group in groupby(sums, _block)]
    if words:
        taken = _first(blocks, main, values)
    elif len(blocks) >= BLOCKS and len({values.grids[n] for n in sums}) == 1:
        taken = blocks[1:-1]
    else:
        taken = _coarsest(found, main, values)
    return [Chosen(n, module_path(n) or n.name, values.plans[n], values.of) for n in taken]


def _first(blocks: list[fx.Node], main: list[fx.Node], values: Values) -> list[fx.Node]:
    """The stream behind the first of several blocks; of one block alone, what goes into it.

    A norm at the end of the block belongs to it: in front of one the exact derivative carries nothing.
    """
    if len(blocks) > 1:
        name = _block(blocks[0])
        return [n for n in main if _block(n) == name][-1:]
    live = [n for n in values.plans if values.is_live(n)]
    early = [n for n in live if n in values.through and n not in values.computed]
    return early[-1:] or live[:1]


def _block(node: fx.Node) -> str:
    """What the module of a node is a part of: its path up to the last part that is numbered."""
    parts = module_path(node).split(".")
    numbered = [i for i, part in enumerate(parts) if re.search(r"\d$", part)]
    return ".".join(parts[: numbered[-1] + 1]) if numbered else node.name


def _coarsest(found: list[fx.Node], main: list[fx.Node], values: Values) -> list[fx.Node]:
    """The last value at each of the two coarsest grids, of those that every path passes where there are any."""
    if not found:
        return []

    def size(n: fx.Node) -> int:
        return math.prod(values.grids[n])

    first = min(main or found, key=lambda n: (size(n), -values.between.index(n)))
    axes = len(values.grids[first])  # maps of other axes cannot be one, as of a clip whose frames have become one
    finer = [n for n in found if size(n) > size(first) and len(values.grids[n]) == axes]
    if not finer or None in values.plans[first].grid:
        return [_last_of(values.grids[first], found, main, values)]
    second = min(finer, key=size)
    grids = [values.grids[second], values.grids[first]]
    return [_last_of(grid, found, main, values) for grid in grids]


def _last_of(grid: tuple[int, ...], found: list[fx.Node], main: list[fx.Node], values: Values) -> fx.Node:
    there = [n for n in main if values.grids[n] == grid] or [n for n in found if values.grids[n] == grid]
    return there[-1]


def named(values: Values, names: Sequence[str]) -> list[Chosen]:
    """The outputs of modules.

    Raises:
        TapError: no module of that name, or its output has no grid, or no cotangent reaches it.
    """
    return [_named(values, name) for name in names]


def _named(values: Values, name: str) -> Chosen:
    path = _path_of(values.graph, name)
    inside = [n for n in calls(values.graph) if _is_in(n, path) and not is_size(n)]
    leaving = [n for n in inside if _is_tensor(n) and any(not _is_in(user, path) for user in n.users)]
    ready = [n for n in leaving if n in values.plans and values.is_live(n)]
    if ready:
        return Chosen(ready[-1], name, values.plans[ready[-1]], values.of)
    reason = "what it returns lies on no grid of places: the features are all there is"
    if not any(n in values.between for n in leaving):
        reason = "the class does not depend on what it returns"
    elif any(n in values.plans for n in leaving):
        reason = "the rules hold what it returns constant, so that no cotangent reaches it"
    ready_modules = sorted({module_path(n) for n in values.candidates()} - {""})
    raise TapError(f"no tap at {name!r}: {reason}. Tap another module, such as {_some(ready_modules)}; or 'auto'.")


def _path_of(graph: fx.Graph, name: str) -> str:
    """The path of a module: its own, or the one that ends in it, as where the network was wrapped."""
    paths = {module_path(n) for n in calls(graph)} - {""}
    every = sorted({".".join(p.split(".")[:i]) for p in paths for i in range(1, p.count(".") + 2)})
    if name in every:
        return name
    ending = [path for path in every if path.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise TapError(f"no tap at {name!r}: there are {', '.join(ending)}. Name one of them.")
    close = difflib.get_close_matches(name, every, 3) or every[-3:]
    there = f"There are {', '.join(close)}, among others; or 'auto'." if every else "Use taps='auto'."
    raise TapError(f"no tap at {name!r}: no module of this name computes anything. {there}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[-3:]) or "one in front of it"


def _is_in(node: fx.Node, name: str) -> bool:
    path = module_path(node)
    return node.op == "call_function" and (path == name or path.startswith(f"{name}."))


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor) and is_float_tensor(node)


def _is_sum(node: fx.Node, values: Values, words: bool) -> bool:
    """Whether two values are added that both depend on the input; words that were looked up may be one of them."""
    if Trait.SHIFTING not in values.operators.at(node):
        return False
    terms = {n for n in input_nodes(node) if n in values.plans or (words and n is explained(values.graph))}
    return len(terms) == 2


def parts_of(graph: fx.Graph) -> dict[str, fx.Node]:
    """The values of several explained inputs, by their names; none where one is explained."""
    return {node.meta[PART]: node for node in graph.nodes if PART in node.meta}


def _of_part(graph: fx.Graph, of: str) -> set[fx.Node] | None:
    """What depends on one of several explained inputs and on no other."""
    if not of:
        return None
    parts = parts_of(graph)
    others = depends_on(graph, [node for name, node in parts.items() if name != of])
    return depends_on(graph, [parts[of]]) - others


def _between(graph: fx.Graph) -> list[fx.Node]:
    """What lies between the input and the logits, in order, both included."""
    needed: set[fx.Node] = set(outputs(graph))
    for node in reversed(list(graph.nodes)):
        if node in needed:
            needed.update(input_nodes(node))
    reached = depends_on(graph, [explained(graph)])
    return [n for n in graph.nodes if n in needed and n in reached]


def _passed_by_all(between: Sequence[fx.Node]) -> set[fx.Node]:
    """The values that every path from the input to the logits passes."""
    places = {node: i for i, node in enumerate(between)}
    found, farthest = set(), 0
    for i, node in enumerate(between):
        if farthest <= i:
            found.add(node)
        farthest = max([farthest, *(places[user] for user in node.users if user in places)])
    return found
