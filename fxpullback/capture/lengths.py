"""Numbers that a forward keeps in tensors and that are sizes: `n = torch.tensor(x.shape[1])`, then `table[:n]`.

torch.export reads a number off such a tensor as one that it does not know. Here the size that a tensor of no axes was
made of is remembered while the model is exported, through whole-number arithmetic, and given where the number is read.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from fxpullback.graph.alone import alone

_MADE = frozenset({"tensor", "as_tensor", "scalar_tensor"})
_FIXED = frozenset({"__int__", "__index__"})
"""Functions that Python wants a plain number of: the size is then one that the model fixes."""
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "__add__": operator.add,
    "__radd__": operator.add,
    "sub": operator.sub,
    "__sub__": operator.sub,
    "__rsub__": lambda a, b: b - a,
    "rsub": lambda a, b: b - a,
    "mul": operator.mul,
    "__mul__": operator.mul,
    "__rmul__": operator.mul,
    "neg": operator.neg,
    "__neg__": operator.neg,
    "floor_divide": operator.floordiv,
    "__floordiv__": operator.floordiv,
}
_TAKES_NUMBERS = frozenset({"clamp", "clip", "clamp_min", "clamp_max", "arange", "__getitem__"})
"""Functions that read the number off a tensor where they take one."""
_SAME = frozenset({"long", "int", "clone", "detach", "contiguous", "cpu"})


def _in_whole_steps(args: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of `arange(n, -n, -1.0)` with whole floats as whole numbers: the length is one of sizes then."""
    floats = [arg for arg in (*args, named.get("step")) if isinstance(arg, float)]
    if not floats or any(not number.is_integer() for number in floats):
        return args, named
    if named.get("dtype") is None:
        named = {**named, "dtype": torch.get_default_dtype()}
    whole = {key: int(value) if isinstance(value, float) else value for key, value in named.items()}
    return tuple(int(arg) if isinstance(arg, float) else arg for arg in args), whole


@contextmanager
def remembered() -> Iterator[None]:
    """Remember the sizes that tensors are made of, and take steps between sizes for whole numbers, in this thread."""
    with alone() as mine, _Remembered(mine):
        yield


class _Remembered(TorchFunctionMode):
    def __init__(self, mine: Callable[[], bool]) -> None:
        super().__init__()
        self.mine = mine
        self.sizes: dict[int, tuple[Tensor, int, Any]] = {}  # the tensor is held, so that no other gets its number

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if not self.mine():
            return func(*args, **named)
        if name in ("item", *_FIXED) and args and self._holds(args[0]):
            return self._number(args[0]) if name == "item" else int(self._number(args[0]))
        if name in _TAKES_NUMBERS and self.sizes:
            first, *others = args
            args, named = (first if name != "arange" else self._in(first), *map(self._in, others)), self._in(named)
        if name == "arange" and any(isinstance(arg, torch.SymInt) for arg in args):
            args, named = _in_whole_steps(args, named)
        if name == "as_tensor" and args and isinstance(args[0], torch.SymInt):
            func, named = torch.scalar_tensor, {"dtype": torch.int64, **named}  # the other makes it a plain number
        result = func(*args, **named)
        size = self._size(name, args)
        if size is not None and isinstance(result, Tensor) and result.ndim == 0 and not result.is_floating_point():
            self.sizes[id(result)] = result, result._version, size
        return result

    def _size(self, name: str, args: tuple[Any, ...]) -> Any:
        """The size that a call returns in a tensor; None where it returns something else."""
        if name in _MADE and args and isinstance(args[0], torch.SymInt):
            return args[0]
        if not args or not any(map(self._holds, args)):
            return None
        if name in _SAME:
            return self._number(args[0])
        numbers = [self._number(arg) for arg in args]
        whole = all(isinstance(number, int | torch.SymInt) for number in numbers)
        return _ARITHMETIC[name](*numbers) if whole and name in _ARITHMETIC else None

    def _holds(self, leaf: Any) -> bool:
        """Whether a tensor holds a size, and has not been written to since."""
        return id(leaf) in self.sizes and leaf._version == self.sizes[id(leaf)][1]

    def _number(self, leaf: Any) -> Any:
        return self.sizes[id(leaf)][2] if self._holds(leaf) else leaf

    def _in(self, given: Any) -> Any:
        """An argument with the sizes in place of the tensors that hold them, those that bound a slice, too."""
        if isinstance(given, slice):
            return slice(*(self._number(bound) for bound in (given.start, given.stop, given.step)))
        if isinstance(given, tuple):
            return tuple(self._in(part) for part in given)
        return tree_map(self._number, given)
