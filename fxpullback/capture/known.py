"""What a forward reads off constants: a mask that is a buffer, a number taken by `.item()`, the places of a table.

torch.export sees shapes and no values, so that `x[:, :, self.mask]` has as many entries for it as a number it does not
know. Here the model is run as it is, and what depends on none of its inputs is noted; while the model is exported, the
noted values stand for it. What depends on sizes is told apart by a second run, of another batch and other free sizes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ShapesCollection
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from fxpullback.graph.alone import alone
from fxpullback.graph.ir import aten

_NUMBERS = frozenset({"item", "__float__", "__int__", "__bool__", "__index__", "tolist"})
_COUNTED = frozenset(
    {"nonzero", "argwhere", "unique", "unique_consecutive", "_return_output", "repeat_interleave", "bincount"}
)
"""Functions whose result is as large as the values of their arguments say."""

READS = (aten._local_scalar_dense.default, aten.item.default)
_INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
_BY_MASK = frozenset({"__getitem__", "__setitem__"})
_CHOSEN = "masked_select"


@dataclass(frozen=True)
class Note:
    """One call that reads values.

    Attributes:
        name: of the function.
        value: what stands for the call; for a choice by masks, for its index. None where it depends on the inputs.
    """

    name: str
    value: Any = None


def noted(model: nn.Module, inputs: Sequence[Tensor], names: Sequence[str], larger: Sequence[Tensor]) -> list[Note]:
    """The calls of a forward that read values, in their order, with the values of those that are constants.

    Args:
        model: the module; it is run twice.
        inputs: one batch.
        names: of the inputs, where they are passed by name.
        larger: another batch, larger along every axis that is to be free.

    Returns:
        The notes; none where no constant is read, or where the runs do not agree on which calls there are.
    """
    try:
        first, second = _run(model, inputs, names), _run(model, larger, names)
    except Exception:  # whatever keeps the model from running is said by the export
        return []
    if [note.name for note in first] != [note.name for note in second]:
        return []
    notes = [a if _same(a.value, b.value) else Note(a.name) for a, b in zip(first, second, strict=True)]
    return notes if any(note.value is not None for note in notes) else []


def larger(inputs: Sequence[Tensor], shapes: ShapesCollection) -> list[Tensor]:
    """A batch with one more sample, and twice as large along every other free axis."""
    found = []
    for tensor in inputs:
        for axis in shapes[tensor] or {}:
            tensor = torch.cat([tensor, tensor if axis else tensor[:1]], axis)
        found.append(tensor)
    return found


def of_values(graph: fx.Graph) -> bool:
    """Whether an exported graph reads a number off a tensor, or has sizes that values say."""
    return any(
        node.target in READS or _has_mask(node) or bool(free_unbacked_symbols(val))
        for node in graph.nodes
        if isinstance(val := node.meta.get("val"), Tensor) or node.target in READS
    )


def _has_mask(node: fx.Node) -> bool:
    """Whether a node takes the entries that a mask says: as many as torch has found out, or not."""
    if node.target is aten.masked_select.default:
        return True
    indices = node.args[1] if node.target in _INDEXED else ()
    return any(isinstance(n, fx.Node) and _is_mask(n.meta.get("val")) for n in tree_leaves(indices))


@contextmanager
def given(notes: Sequence[Note]) -> Iterator[None]:
    """Have the noted values stand for the calls that read them, in this thread."""
    with alone() as mine, _Given(notes, mine):
        yield


def _run(model: nn.Module, inputs: Sequence[Tensor], names: Sequence[str]) -> list[Note]:
    passed, model = [tensor.detach().clone() for tensor in inputs], copy.deepcopy(model)
    with torch.no_grad(), Noticed(passed) as noticed:
        if names:
            model(**dict(zip(names, passed, strict=True)))
        else:
            model(*passed)
    notes: list[Note] = noticed.notes
    return notes


class Noticed(TorchFunctionMode):
    """Follows what depends on the inputs, by the memory that holds it, and notes the calls that read values."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.notes: list[Note] = []
        self.held = list(inputs)  # so that no memory is used again
        self.of_inputs = {memory(tensor) for tensor in inputs}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        reads = _reads(name, args, named)
        note = self._note(name, args) if reads and name in (*_BY_MASK, _CHOSEN) else None
        active = any(self.depends(leaf) for leaf in tree_leaves((args, named)))
        result = func(*args, **named)
        if name == "tolist":  # torch.export takes it apart into numbers
            self.notes += [Note("item", None if active else number) for number in tree_leaves(result)]
        elif reads:
            self.notes.append(note or Note(name, None if active else tree_map(_copied, result)))
        if active:
            changed = args[:1] if name.endswith("_") or name in named else ()
            for leaf in tree_leaves((result, changed, named.get("out"))):
                self._hold(leaf)
        return result

    def _note(self, name: str, args: tuple[Any, ...]) -> Note:
        masks = [leaf for leaf in _parts(args[1]) if _is_mask(leaf)]
        if any(self.depends(mask) for mask in masks):
            return Note(name)
        if name != _CHOSEN:
            return Note(name, _places(args[1]))
        fits = args[0].shape[max(0, args[0].ndim - args[1].ndim) :] == args[1].shape
        return Note(name, (..., *_places(args[1])) if fits else None)

    def depends(self, leaf: Any) -> bool:
        """Whether a value depends on the inputs."""
        return isinstance(leaf, Tensor) and memory(leaf) in self.of_inputs

    def _hold(self, leaf: Any) -> None:
        if isinstance(leaf, Tensor):
            self.held.append(leaf)
            self.of_inputs.add(memory(leaf))


class _Given(TorchFunctionMode):
    """Gives what was noted, call by call; a call that is not the next one noted goes through."""

    def __init__(self, notes: Sequence[Note], mine: Callable[[], bool]) -> None:
        super().__init__()
        self.notes, self.mine, self.next = notes, mine, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if not self.mine() or not _reads(name, args, named) or self.notes[self.next].name != name:
            return func(*args, **named)
        note = self.notes[self.next]
        self.next = (self.next + 1) % len(self.notes)
        if note.value is None:
            return func(*args, **named)
        if name == _CHOSEN:
            return args[0][_made(note.value)].flatten()
        if name in _BY_MASK:
            return func(args[0], _made(note.value), *args[2:], **named)
        return _made(note.value)


def _reads(name: str, args: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    if name in _NUMBERS or name in _COUNTED:
        return True
    if name == "where":
        return len(args) + len(named) == 1
    if name == _CHOSEN:
        return len(args) > 1
    return name in _BY_MASK and any(_is_mask(part) for part in _parts(args[1]))


def _is_mask(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype in (torch.bool, torch.uint8) and leaf.ndim > 0


def _parts(index: Any) -> tuple[Any, ...]:
    """The parts of an index; lists and arrays of booleans, which torch takes for masks, as tensors."""
    parts = index if isinstance(index, tuple) else (index,)
    return tuple(torch.as_tensor(part) if _is_listed_mask(part) else part for part in parts)


def _is_listed_mask(part: Any) -> bool:
    if isinstance(part, list):
        leaves = tree_leaves(part)
        return bool(leaves) and all(isinstance(leaf, bool) for leaf in leaves)
    return isinstance(part, np.ndarray) and part.dtype == np.bool_ and part.ndim > 0


def _places(index: Any) -> Any:
    """An index with the places of its masks in place of them, tensors of whole numbers."""
    found: list[Any] = []
    for part in _parts(index):
        found += part.nonzero(as_tuple=True) if _is_mask(part) else [_copied(part)]
    return tuple(found)


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _made(value: Any) -> Any:
    """Constants made anew, in the graph that is traced."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, value)


def memory(tensor: Tensor) -> int:
    """Which memory holds a tensor."""
    return int(tensor.untyped_storage()._cdata)


def _same(a: Any, b: Any) -> bool:
    one, other = tree_leaves(a), tree_leaves(b)
    return len(one) == len(other) and all(
        (x.shape == y.shape and bool(torch.equal(x, y))) if isinstance(x, Tensor) and isinstance(y, Tensor) else x == y
        for x, y in zip(one, other, strict=True)
    )
