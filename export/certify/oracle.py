"""What a file is checked against: its model in injected form, run by eager autograd on inputs that nobody has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from fxpullback.certify.eager import run_eagerly
from fxpullback.certify.fresh import Looks, fresh_target
from fxpullback.contract.sizes import FreeAxis
from fxpullback.export.certify.ties import first_of_equals
from fxpullback.export.runtime.session import Result, Session
from fxpullback.graph.float64 import in_float64
from fxpullback.graph.inputs import Inputs
from fxpullback.taps.contribution import Taps
from fxpullback.target import Target
from fxpullback.unroll import NO_TAPS, Program

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled


@dataclass(frozen=True)
class Oracle:
    """What a file of any precision is checked against.

    Attributes:
        injected: the model in injected form, in float32.
        program: the file's program.
        target: the file's target.
        looks: what its inputs look like.
        taps: where contributions are read off, by nodes of `injected`.
        in_onnx: whether the file is one of ONNX, which takes the first of equal values.
    """

    injected: fx.GraphModule
    program: Program
    target: Target
    looks: Looks
    taps: Taps = NO_TAPS
    in_onnx: bool = True

    @classmethod
    def of(cls, pb: Compiled) -> Oracle:
        """That of a compiled model."""
        return cls(pb.folded, pb.program, pb.target, Looks.of(pb), pb.taps)

    def at(self, free: Sequence[FreeAxis], seed: int) -> Oracle:
        """The same for inputs of other sizes along the free axes."""
        return replace(self, looks=self.looks.at(free, seed))

    @property
    def size(self) -> str:
        """The size of an input behind its channels, `32x48`."""
        return self.looks.size

    def run(self, model: fx.GraphModule, inputs: Inputs, given: Tensor | None) -> dict[str, Tensor]:
        """What the graph that runs returns, by autograd through the injected form in some precision."""
        held = first_of_equals(model) if self.in_onnx else model
        return self.outputs(run_eagerly(held, self.program, self.target, inputs, given, self.taps))

    def draw(self, count: int, classes: int, seed: int) -> Drawn:
        """Draw a batch and a target, and run the program by autograd in float64."""
        inputs = self.looks.draw(count, seed, torch.empty(0))
        given = fresh_target(self.target, count, classes, inputs.x, seed + 1)
        wide = given.double() if given is not None and given.is_floating_point() else given
        return Drawn(self, inputs, given, self.run(in_float64(self.injected), inputs.double(), wide))

    def outputs(self, results: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the graph that runs returns, of what the program returns."""
        entry = self.looks.entry
        return dict(results) if entry is None else entry.outputs(results)


@dataclass(frozen=True)
class Drawn:
    """Fresh inputs, a target, and what float64 autograd makes of them.

    Attributes:
        oracle: what made it.
        inputs: the batch, in float32.
        given: the target; None for top-1.
        wanted: tensors in float64 by output name.
    """

    oracle: Oracle
    inputs: Inputs
    given: Tensor | None
    wanted: Mapping[str, Tensor]

    @property
    def passed(self) -> tuple[Tensor, ...]:
        """What of the batch the graph that runs is given."""
        return self.oracle.looks.passed(self.inputs)

    def through(self, session: Session, count: int) -> Result:
        """What a file makes of the first samples."""
        x, *extras = (tensor.numpy() for tensor in self.oracle.looks.passed(self.inputs[:count]))
        return session(x, None if self.given is None else self.given[:count].numpy(), *extras)

    def in_float32(self, graph: fx.GraphModule) -> dict[str, Tensor]:
        """What float32 autograd makes of them, through the injected form or one like it."""
        return self.oracle.run(graph, self.inputs, self.given)
