"""A graph as JSON text: readable by a person, and run again without executing anything that the text brings along.

Only operators that compute tensors, `getitem` and size arithmetic can be named, so reading a foreign text can compute
but not act. An operator outside `torch.ops.aten` and `torch.ops.fxpullback` is read back only where the process has it
already: nothing is imported or loaded for a text. Constants are named, not stored; small ones may be stored beside.
"""

from __future__ import annotations

import base64
import json
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxpullback.contract.errors import VerifyError

_SIZES = (operator.add, operator.mul, operator.floordiv, operator.mod, operator.pow, operator.truediv)
_ROUNDED = (math.trunc, math.floor, math.ceil, torch.sym_max, torch.sym_min, torch.sym_float)
_ARITHMETIC: dict[str, Callable[..., Any]] = {f.__name__: f for f in (operator.getitem, *_SIZES, *_ROUNDED)}
_SETTINGS = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_SMALL = 16384
_OURS = ("aten", "fxpullback")


def to_text(gm: fx.GraphModule, stored_elsewhere: set[str]) -> str | None:
    """Write a graph as JSON.

    Args:
        gm: the graph.
        stored_elsewhere: names of constants that whoever reads the text will have.

    Returns:
        The text, or None where a constant is neither stored elsewhere nor small enough to stand in the text.
    """
    nodes, constants = [], {}
    for node in gm.graph.nodes:
        if node.op == "get_attr" and node.target not in stored_elsewhere:
            tensor = getattr(gm, str(node.target)).detach()
            if tensor.numel() > _SMALL:
                return None
            constants[str(node.target)] = _tensor_text(tensor)
        target = _target_text(node.target) if node.op == "call_function" else str(node.target)
        nodes.append([node.name, node.op, target, _encode(node.args), _encode(node.kwargs)])
    return json.dumps({"nodes": nodes, "constants": constants}, separators=(",", ":"))


def from_text(text: str, constants: Mapping[str, Tensor]) -> fx.GraphModule:
    """Read a graph back.

    Args:
        text: what `to_text` wrote.
        constants: the constants stored elsewhere, by name.

    Raises:
        VerifyError: a constant is missing, or the text names an operator that this process does not have, or something
            that is no operator of a graph.
    """
    data = json.loads(text)
    _demand_operators({target for _, op, target, *_ in data["nodes"] if op == "call_function"})
    root, graph = nn.Module(), fx.Graph()
    env: dict[str, fx.Node] = {}
    for name, op, target, args, kwargs in data["nodes"]:
        if op == "get_attr" and not hasattr(root, target):
            root.register_buffer(target, _constant(target, data["constants"], constants))
        called = _target(target) if op == "call_function" else target
        decoded = _decode(args, env), _decode(kwargs, env)
        env[name] = graph.create_node(op, called, *decoded, name)
    return fx.GraphModule(root, graph)


def _constant(name: str, stored: Mapping[str, Any], constants: Mapping[str, Tensor]) -> Tensor:
    if name in stored:
        return _tensor(stored[name])
    if name not in constants:
        raise VerifyError(f"the weights {name} are not there under this name any more.")
    return constants[name]


def _tensor_text(tensor: Tensor) -> list[Any]:
    data = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), base64.b64encode(data).decode()]


def _tensor(stored: list[Any]) -> Tensor:
    dtype, shape, data = stored
    return torch.frombuffer(bytearray(base64.b64decode(data)), dtype=getattr(torch, dtype)).reshape(shape)


def _target_text(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    name: str = target.__name__
    assert _ARITHMETIC.get(name) is target, f"{target} is no operator of a graph"
    return f"operator.{name}"


def _demand_operators(names: set[str]) -> None:
    """Refuse a text that names operators of libraries that are not part of this process, all of them at once."""
    missing = sorted(name for name in names if _is_foreign(name) and _overload(name) is None)
    if missing:
        raise VerifyError(
            f"the injected form uses {', '.join(missing)}, which this process does not have. Import what registers "
            "it and check the file in that Python process (fxpullback.export.certify.recheck.recheck(path)), or check "
            "the compiled model with its verify()."
        )


def _target(text: str) -> Callable[..., Any]:
    kind, _, name = text.partition(".")
    if kind == "operator" and name in _ARITHMETIC:
        return _ARITHMETIC[name]
    overload = _overload(text)
    if overload is None:
        raise VerifyError(f"{text!r} is no operator of a graph.")
    if not _only_computes(overload, _is_foreign(text)):
        raise VerifyError(
            f"{text!r} may do more than compute tensors, so it is not called for a file. Check the compiled model with "
            "its verify()."
        )
    return overload


def _is_foreign(text: str) -> bool:
    """Whether a name is that of an operator which neither torch nor this package defines."""
    return text.count(".") >= 2 and text.partition(".")[0] not in _OURS


def _overload(text: str) -> torch._ops.OpOverload | None:
    """The operator of a name such as `aten.add.Tensor`, where this process has it."""
    namespace, _, rest = text.partition(".")
    name, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    found = getattr(packet, overload, None) if isinstance(packet, torch._ops.OpOverloadPacket) else None
    return found if isinstance(found, torch._ops.OpOverload) else None


def _only_computes(overload: torch._ops.OpOverload, foreign: bool) -> bool:
    """Whether an operator returns something, writes to none of its arguments, and is given no file or other resource.

    Those are named by strings. Operators of torch take some for modes as well; of others we cannot know.
    """
    schema = overload._schema
    strings = [argument.name for argument in schema.arguments if "str" in str(argument.type)]
    named = bool(strings) if foreign else "filename" in strings
    return bool(schema.returns) and not schema.is_mutable and not named


def _encode(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, tuple | list):
        return [_encode(v) for v in value]
    if isinstance(value, dict):
        return {"dict": {k: _encode(v) for k, v in value.items()}}
    return {"torch": str(value).removeprefix("torch.")} if isinstance(value, _SETTINGS) else value


def _decode(value: Any, env: Mapping[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(v, env) for v in value)
    if not isinstance(value, dict):
        return value
    if "node" in value:
        return env[value["node"]]
    if "dict" in value:
        return {k: _decode(v, env) for k, v in value["dict"].items()}
    setting = getattr(torch, value["torch"], None)
    return setting if isinstance(setting, _SETTINGS) else torch.device(value["torch"])
