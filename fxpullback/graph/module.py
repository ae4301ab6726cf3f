"""The graph module that every stage takes and returns: an fx graph, its signature, its constants in float64."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from torch import Tensor, fx, nn

from fxpullback.contract.signature import Signature


class Graph(fx.GraphModule):
    """An `fx.GraphModule` with typed facts beside it; its Python code is written when it is first run.

    A compilation makes dozens of graphs and runs none of them. Stages leave a graph as it is and make a new one.

    Attributes:
        signature: what the graph takes and returns.
        exact: constants computed in float64, by a rule or by folding, by name; the graph holds them rounded.
        scaled: names of those that are made of constants of the model, by a factor or by folding.
    """

    signature: Signature
    exact: Mapping[str, Tensor]
    scaled: Collection[str]

    def __init__(
        self,
        root: nn.Module,
        graph: fx.Graph,
        signature: Signature | None = None,
        exact: Mapping[str, Tensor] | None = None,
        scaled: Collection[str] = (),
    ) -> None:
        super().__init__(root, graph)
        self.signature = signature or Signature()
        self.exact = dict(exact or {})
        self.scaled = frozenset(scaled)

    def with_signature(self, signature: Signature) -> Graph:
        """The same graph, taken for one of another signature."""
        return Graph(self, self.graph, signature, self.exact, self.scaled)

    def recompile(self) -> Any:
        """Note that the code is out of date."""
        type(self).forward = Graph._compiled_first

    def _compiled_first(self, *args: Any, **kwargs: Any) -> Any:
        fx.GraphModule.recompile(self)
        return type(self).forward(self, *args, **kwargs)

    def _write_code(self) -> None:
        if type(self).forward is Graph._compiled_first:
            fx.GraphModule.recompile(self)

    @property
    def code(self) -> str:
        """The Python code of the graph."""
        self._write_code()
        return super().code

    def __deepcopy__(self, memo: Any) -> Graph:
        copied = cast(Graph, super().__deepcopy__(memo))
        copied.signature, copied.exact, copied.scaled = self.signature, dict(self.exact), self.scaled
        return copied

    def __reduce__(self) -> Any:
        return fx.GraphModule(self, self.graph).__reduce__()


def signature_of(gm: fx.GraphModule) -> Signature:
    """The signature of a graph; one that was made by hand has one input and the output `logits`."""
    return gm.signature if isinstance(gm, Graph) else Signature()
