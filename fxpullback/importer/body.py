"""Nodes of a file as children of a module, run one after the other; branches on sizes among them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fxpullback.contract.errors import CaptureError, FxPullbackError
from fxpullback.importer.loops import repeated, scanned
from fxpullback.importer.numbers import MOST, Array, Known
from fxpullback.importer.operators.integers import of_integers
from fxpullback.importer.operators.quantised import Quantised
from fxpullback.importer.operators.table import OPERATORS, key_of
from fxpullback.importer.steps import Branch, Plan, Step, refuse


class Call(nn.Module):
    """One node."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def __deepcopy__(self, memo: Any) -> Call:
        return Call(self.step)

    def forward(self, *values: Any) -> tuple[Any, ...]:
        """What the node makes of what it reads.

        Raises:
            CaptureError: it cannot be computed; the message names the node.
        """
        node = self.step.node
        try:
            operator = self.step.operator or OPERATORS[key_of(node.domain, node.kind)]
            integers = any(isinstance(value, Quantised) for value in values)
            made = of_integers(node, operator, values) if integers else operator(node, *values)
        except CaptureError as error:
            raise CaptureError(f"{node.said()}: {error}") from error
        except FxPullbackError:
            raise
        except Exception as error:
            shapes = ", ".join(str(list(v.shape)) for v in values if isinstance(v, Tensor))
            fixed = f" The file fixes its batch at {node.batch}; export it with a free one." if node.batch else ""
            raise CaptureError(f"{node.said()} cannot be computed of {shapes}: {_first_line(error)}.{fixed}") from error
        return tuple(made) if isinstance(made, tuple) else (made,)


class Either(nn.Module):
    """A branch whose condition is made of sizes: one of two graphs, the same for every sample."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        assert step.branches is not None
        self.step = step
        self.yes, self.no = (Body(branch.plan, branch.outputs) for branch in step.branches)

    @property
    def names(self) -> dict[str, str]:
        """Names of the nodes of both, by that of the child."""
        found = {f"yes.{child}": name for child, name in self.yes.names.items()}
        return found | {f"no.{child}": name for child, name in self.no.names.items()}

    def forward(self, condition: Any, *values: Any) -> tuple[Any, ...]:
        """What the graph makes that the condition chooses.

        Raises:
            CaptureError: the condition is made of values; or the graph holds operators that are not imported.
        """
        if not isinstance(condition, Known):
            raise CaptureError(
                f"If {self.step.node.name!r} branches on a value that is computed, and a graph takes one way. Export "
                "the model without the branch, by torch.where for one on values; where it hangs on an input that is "
                "the same each time, hold that one: --hold NAME=VALUE."
            )
        assert self.step.branches is not None
        holds = bool(condition.array.reshape(-1)[0])
        branch: Branch = self.step.branches[0 if holds else 1]
        refuse(branch.unknown)
        given = dict(zip(self.step.inputs[1:], values, strict=True))
        body: Body = self.yes if holds else self.no
        made = body.compute({name: given[name] for name in branch.inputs})
        return tuple(made[name] for name in branch.outputs)


class Repeat(nn.Module):
    """A loop, written out: its graph once for each step, as many as sizes and constants say."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        assert step.repeated is not None
        self.step, self.graph = step, step.repeated
        self.body = Body(self.graph.plan, self.graph.outputs)

    @property
    def names(self) -> dict[str, str]:
        """Names of the nodes inside, by that of the child."""
        return {f"body.{child}": name for child, name in self.body.names.items()}

    def forward(self, *values: Any) -> tuple[Any, ...]:
        """What the loop ends with, and what it collects at every step.

        Raises:
            CaptureError: how often it runs depends on values, or on a size that is free; or it runs too often.
        """
        refuse(self.graph.unknown)
        count = len(values) - len(self.graph.inputs)
        outer = dict(zip(self.graph.inputs, values[count:], strict=True))
        try:
            run = repeated if self.step.node.kind == "Loop" else scanned
            return run(self.step.node, values[:count], lambda *given: self._once(outer, given))
        except CaptureError as error:
            raise CaptureError(f"{self.step.node.said()}: {error}") from error

    def _once(self, outer: Mapping[str, Any], given: Sequence[Any]) -> list[Any]:
        made = self.body.compute({**outer, **dict(zip(self.graph.given, given, strict=True))})
        return [made[name] for name in self.graph.outputs]


class Body(nn.Module):
    """The nodes of a graph.

    Attributes:
        names: names of the nodes, by that of the child.
    """

    def __init__(self, plan: Plan, outputs: Sequence[str]) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.names: dict[str, str] = {}
        self.small: dict[str, Array] = {}
        self.held: dict[str, str] = {}
        used = {name for step in plan.steps for name in step.inputs} | set(outputs)
        for name, array in plan.constants.items():
            if name in used:
                self._hold(name, array)
        for i, step in enumerate(plan.steps):
            child: Call | Either | Repeat
            child = Either(step) if step.branches is not None else Repeat(step) if step.repeated else Call(step)
            self.add_module(f"n{i}", child)
            self.names[f"n{i}"] = step.node.name
            if not isinstance(child, Call):
                self.names |= {f"n{i}.{inner}": name for inner, name in child.names.items()}
        self.last = _last_reads(plan.steps, outputs)

    def _hold(self, name: str, array: Array) -> None:
        if array.dtype.kind in "iub" and array.size <= MOST:
            self.small[name] = array
            return
        key = f"c_{re.sub(r'[^0-9A-Za-z_]', '_', name)}"
        while hasattr(self, key):
            key += "_"
        self.register_buffer(key, _tensor(array))
        self.held[name] = key

    def compute(self, given: Mapping[str, Any], *, whole: bool = False) -> dict[str, Any]:
        """Run the nodes.

        Args:
            given: values from outside, by name.
            whole: whether all values are kept.

        Returns:
            Those that are still needed, the outputs among them.
        """
        values: dict[str, Any] = dict(given)
        values |= {name: Known(array) for name, array in self.small.items()}
        values |= {name: getattr(self, key) for name, key in self.held.items()}
        for i, child in enumerate(self.children()):
            assert isinstance(child, Call | Either | Repeat)
            step = child.step
            made = child(*(values[name] if name else None for name in step.inputs))
            values.update({name: value for name, value in zip(step.outputs, made, strict=False) if name})
            for name in () if whole else self.last.get(i, ()):
                values.pop(name, None)
        return values


def _last_reads(steps: Sequence[Step], outputs: Sequence[str]) -> Mapping[int, list[str]]:
    """For every step the values that nothing reads behind it."""
    seen, found = set(outputs), dict[int, list[str]]()
    for i in range(len(steps) - 1, -1, -1):
        found[i] = [n for n in dict.fromkeys(steps[i].inputs) if n and n not in seen]
        seen.update(found[i])
    return found


def _tensor(array: Array) -> Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    if array.dtype.name in ("uint16", "uint32", "uint64", "uint4", "int4", "uint2", "int2"):
        array = array.astype(np.int64)
    if array.dtype.name.startswith("float") and array.dtype.itemsize == 1:  # of 8 bits or fewer
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array))


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
