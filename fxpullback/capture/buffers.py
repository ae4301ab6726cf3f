"""Buffers that a model writes while it runs: refused where its logits depend on them, of no matter elsewhere."""

from __future__ import annotations

from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from fxpullback.capture.reasons import SWITCH_OFF
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.ir import GETITEM, arg, aten, is_call, needed_for, node_argument, placeholders

_FUSED = aten._fused_moving_avg_obs_fq_helper_functional.default
_OBSERVED = ("activation_post_process", "fake_quant")
_CHANGES = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)
_COUNTED = ("running_mean", "running_var", "num_batches_tracked")


def check_unchanged(program: ExportedProgram, output: fx.Node, logits: fx.Node) -> None:
    """Refuse a program whose logits depend on a buffer that it changes: two calls of it would not agree.

    Raises:
        CaptureError: names the buffers and says what to do.
    """
    read = needed_for([logits])
    inputs = {spec.target: spec.arg.name for spec in program.graph_signature.input_specs if spec.target is not None}
    nodes = {node.name: node for node in placeholders(program.graph)}
    changed = []
    for result, spec in zip(arg(output, 0), program.graph_signature.output_specs, strict=True):
        if spec.kind in _CHANGES and spec.target is not None:
            buffer = nodes[inputs[spec.target]]
            if buffer in read and result is not buffer and not _is_left(program, result, buffer):
                changed.append(spec.target)
    if changed:
        kind = "weight" if changed[0] in program.graph_signature.parameters else "buffer"
        raise CaptureError(
            f"the model changes its {kind} {changed[0]} while it runs{_more(changed)}, and its logits depend on it. "
            f"{_advice(changed)}"
        )


def _is_left(program: ExportedProgram, result: fx.Node, buffer: fx.Node) -> bool:
    """Whether what is written is what was there: the range of an observer that is off."""
    if not is_call(result, GETITEM) or not is_call(made := node_argument(result, 0), _FUSED):
        return False
    switch = node_argument(made, 1)
    flags = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    held = {**program.state_dict, **program.constants}.get(str(flags.get(switch.name)))
    return buffer in made.all_input_nodes and held is not None and not bool(held.flatten()[0])


def _more(changed: list[str]) -> str:
    return f" ({len(changed)} such)" if len(changed) > 1 else ""


def _advice(changed: list[str]) -> str:
    if all(any(sign in name for sign in _OBSERVED) for name in changed):
        return SWITCH_OFF
    if any(name.rpartition(".")[2] in _COUNTED for name in changed):
        return "It was exported in training mode: call model.eval() before exporting it."
    return "Two calls of it do not agree. Compute it of the input, or update the buffer in training alone."
