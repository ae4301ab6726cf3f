"""A lowered fx graph, node by node, into an ONNX graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from onnx_ir.tensor_adapters import from_torch_dtype
from torch._ops import OpOverload

from fxpullback.contract.errors import ExportError
from fxpullback.contract.sizes import axis_name
from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.values import Value, dim
from fxpullback.graph.ir import arg, module_path, node_argument, place, schema_arguments
from fxpullback.graph.module import signature_of

OPSET = 20
IR_VERSION = 10

Translator: TypeAlias = Callable[..., Value | Sequence[Value | None]]
"""(builder, every argument of the operator's schema, in order) -> its value or values."""

BUG = "This is a bug in a translator."


def merge(*tables: Mapping[OpOverload, Translator]) -> dict[OpOverload, Translator]:
    """One table out of several; two translators for one operator are an error."""
    merged: dict[OpOverload, Translator] = {}
    for table in tables:
        twice = merged.keys() & table.keys()
        if twice:
            raise ExportError(f"two translators for {', '.join(sorted(map(str, twice)))}. Remove one.")
        merged.update(table)
    return merged


def translate_graph(
    gm: torch.fx.GraphModule,
    table: Mapping[OpOverload, Translator],
    opset: int = OPSET,
    advice: str = BUG,
    reserved: Collection[str] = (),
) -> ir.Model:
    """Translate with a given table; see `translate` for the contract. `advice` ends the message of an invalid model."""
    output = gm.graph.output_node()
    results = output.args[0] if isinstance(output.args[0], (tuple, list)) else (output.args[0],)
    names = signature_of(gm).outputs
    if len(names) != len(results):
        raise ExportError(f"the graph has {len(results)} outputs, and its signature names {', '.join(names)}.")
    inputs = [str(node.target) for node in gm.graph.nodes if node.op == "placeholder"]
    builder = Builder(reserved=[*inputs, *names, *reserved])
    env: dict[torch.fx.Node, Any] = {}
    for node in gm.graph.nodes:
        builder.node = node
        if node.op == "placeholder":
            env[node] = _placeholder(builder, node)
        elif node.op == "get_attr":
            env[node] = builder.parameter(str(node.target).replace(".", "_"), _attribute(gm, str(node.target)))
        elif node.op == "call_function":
            _call(builder, node, env, table)
        elif node.op != "output":
            raise ExportError(f"{node.op} at {place(node)}: the graph is not lowered. Run the whole pipeline first.")
    outputs = [_output(builder, env[node], name) for node, name in zip(results, names, strict=True)]
    graph = ir.Graph(
        [env[node] for node in gm.graph.nodes if node.op == "placeholder"],
        outputs,
        nodes=builder.nodes,
        initializers=builder.initializers,
        opset_imports={"": opset},
        name="fxpullback",
    )
    return _cleaned(ir.Model(graph, ir_version=IR_VERSION, producer_name="fxpullback"), advice)


def _placeholder(builder: Builder, node: torch.fx.Node) -> Value:
    value = ir.Value(name=str(node.target), type=ir.TensorType(from_torch_dtype(node.meta["val"].dtype)))
    dims = tuple(dim(size) for size in node.meta["val"].shape)
    for axis, size in enumerate(dims):
        if not isinstance(size, int):
            builder.bind(size, value, axis, axis_name(axis, len(dims)))
    _describe(builder, value, node.meta["val"])
    return value


def _attribute(gm: torch.fx.GraphModule, path: str) -> torch.Tensor:
    found: Any = operator.attrgetter(path)(gm)
    if not isinstance(found, torch.Tensor):
        raise ExportError(f"get_attr {path!r} is a {type(found).__name__}, not a tensor. Lower the graph first.")
    return found


def _call(
    builder: Builder, node: torch.fx.Node, env: dict[torch.fx.Node, Any], table: Mapping[OpOverload, Translator]
) -> None:
    if node.target is operator.getitem and node.args[0] in env:
        env[node] = env[node_argument(node, 0)][arg(node, 1)]
        return
    if not node.users or not _is_tensor(node.meta.get("val")):
        return
    translator = table.get(node.target) if isinstance(node.target, OpOverload) else None
    if translator is None:
        raise ExportError(
            f"no ONNX translation for {node.target}, at {place(node)}. Express it in operators that have one, or pass "
            f"one: to_onnx(pb, path, translations={{torch.ops.{node.target}: function}})."
        )
    first = len(builder.nodes)
    result = translator(builder, *_arguments(node, env))
    env[node] = result
    if isinstance(result, ir.Value):
        _describe(builder, result, node.meta["val"])
    else:
        for value, val in zip(result, node.meta["val"], strict=True):
            if isinstance(val, torch.Tensor) and isinstance(value, ir.Value):
                _describe(builder, value, val)
    _provenance(builder, node, result, first)


def _is_tensor(val: object) -> bool:
    if isinstance(val, (tuple, list)):
        return any(isinstance(part, torch.Tensor) for part in val)
    return isinstance(val, torch.Tensor)


def _arguments(node: torch.fx.Node, env: Mapping[torch.fx.Node, Any]) -> list[Any]:
    """Every argument of the schema, in its order, with defaults filled in and nodes replaced by values."""
    return [_argument(argument, env) for argument in schema_arguments(node)]


def _argument(argument: Any, env: Mapping[torch.fx.Node, Any]) -> Any:
    if isinstance(argument, torch.fx.Node):
        if argument in env:
            return env[argument]
        val = argument.meta["val"]
        return dim(val) if isinstance(val, (int, torch.SymInt)) else val
    if isinstance(argument, (list, tuple)):
        return [_argument(part, env) for part in argument]
    return argument


def _describe(builder: Builder, value: Value, val: torch.Tensor) -> None:
    """Record sizes and element type on a value that stands for an fx node."""
    if value.meta.get("described"):
        return
    value.meta["described"] = True
    dtype = from_torch_dtype(val.dtype)
    if value.dtype != dtype:
        raise builder.error(f"translated to {value.dtype} where the graph has {dtype}", BUG)
    dims = tuple(dim(size) for size in val.shape)
    value.meta["sizes"] = dims
    value.shape = ir.Shape([builder.named(size) for size in dims])


def _provenance(builder: Builder, node: torch.fx.Node, result: Value | Sequence[Value | None], first: int) -> None:
    """Name what an fx node became after it, and say which module it came from."""
    path = module_path(node)
    new = builder.nodes[first:]
    for made in new:
        if path:
            made.metadata_props["fxpullback.module"] = path
    last = result if isinstance(result, ir.Value) else result[0]
    producer = None if last is None else last.producer()
    if last is not None and producer is not None and any(producer is made for made in new):
        producer.name = last.name = builder.unique(node.name)


def _output(builder: Builder, value: Value, name: str) -> Value:
    if value.producer() is None or value.meta.get("output"):
        node = ir.Node("", "Identity", [value], name=builder.unique(f"{name}/Identity"))
        builder.nodes.append(node)
        copy, copy.shape, copy.type = node.outputs[0], value.shape, value.type
        value = copy
    value.name = name
    value.meta["output"] = True
    return value


def _cleaned(model: ir.Model, advice: str) -> ir.Model:
    """Drop what is unused, infer the types of what translators made in passing, and check the result."""
    pipeline = ir.passes.Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.ShapeInferencePass(check_type=True, strict_mode=True, data_prop=True),
        passes.CheckerPass(full_check=True),
    )
    try:
        return pipeline(model).model
    except Exception as error:
        raise ExportError(f"the translated graph is not valid ONNX: {error}. {advice}") from error
