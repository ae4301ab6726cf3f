"""Stage 1: an `nn.Module`, `ExportedProgram` or `.pt2` file becomes a functional ATen fx graph.

The graph has one spelling per operator, no in-place operator, no dropout, a symbolic batch, and its weights as flat
constants. The caller's model is not touched: a copy of it is exported.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.export import ExportedProgram

from fxpullback.capture.canonical import canonicalise, decompose, without_assertions
from fxpullback.capture.complex_values import in_real_numbers
from fxpullback.capture.dynamic_sizes import Export, check_module, export_dynamic, wanted_axes
from fxpullback.capture.flatten import check_free_axes, check_output, flatten, ids_name
from fxpullback.capture.lookups import bounded
from fxpullback.capture.masked import in_whole
from fxpullback.capture.original import check_original
from fxpullback.capture.program import Model, TrainingModeWarning, as_program, check_inputs, export
from fxpullback.capture.programs import as_module
from fxpullback.capture.quantised import as_one_operator
from fxpullback.capture.reasons import explained
from fxpullback.capture.refused import refuse
from fxpullback.capture.settings import refuse_set_weights
from fxpullback.capture.watch import Watch
from fxpullback.contract.ends import Ends
from fxpullback.contract.errors import CaptureError, FxPullbackError
from fxpullback.contract.sizes import FreeAxis
from fxpullback.graph.alone import alone
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.cut import cut
from fxpullback.graph.inputs import check_example, check_extra_examples
from fxpullback.graph.ir import mark_values
from fxpullback.graph.module import Graph
from fxpullback.graph.positions import at_positions, with_class_axis
from fxpullback.importer.module import named_after

__all__ = ["Model", "TrainingModeWarning", "capture"]


def capture(
    model: Model,
    example: Tensor,
    extras: Sequence[Tensor] = (),
    names: Sequence[str] = (),
    free_size: bool | Sequence[int] = False,
    compilation: Compilation | None = None,
    ends: Ends | None = None,
) -> Graph:
    """Capture `model` as a functional ATen graph from `input`, and what else it takes, to logits.

    Args:
        model: a module, an exported program, or the path of a `.pt2` file.
        example: one input, `[batch, ...]`; only its shape beyond the batch, its type and device matter.
        extras: examples of the model's further inputs, in order. One whose leading axis has the extent of the example's
            batch is taken for batched; all its other extents are fixed.
        names: what the forward calls example and extras, where they are to be passed by name; none: by position.
        free_size: axes whose size is dynamic as the batch is, or True for all behind the channels.
        compilation: what the stages of one compilation share; it is given what watches over dynamic sizes, and what
            stands in front of the explained input.
        ends: what of the model is explained: its input or embeddings, which output, at which positions.

    Returns:
        Graph module with the placeholder `input` and one for each extra, named as the model's forward names it; flat
        constants; and one output `[batch, classes]`.

    Raises:
        CaptureError: the model cannot be exported with a symbolic batch, or its output is no `[batch, classes]`.
    """
    ends, compilation = ends or Ends(), compilation or Compilation()
    check_example(example, ends.at is not None or (bool(ends.explain) and not example.is_floating_point()))
    check_extra_examples(extras)
    model, limits = as_module(as_program(model, ends.output))
    axes = wanted_axes(free_size, example) or tuple(limits)
    with alone():
        program, free = _exported(
            functools.partial(export, model, example, extras, names), model, example, axes, limits
        )
        check_inputs(program, (example, *extras), names)
        gm = as_one_operator(
            in_whole(flatten(_decomposed(model, program, (example, *extras), names), free, ends.output))
        )
    without_assertions(gm)
    if free:
        compilation.watch = Watch(gm, free, example)
    gm = canonicalise(in_real_numbers(gm, compilation), compilation)
    if ends.at is not None or ends.explain:
        gm, compilation.entry = cut(gm, ids_name(program), ends.explain)
        if compilation.watch is not None:
            compilation.watch.free = bounded(gm, compilation.entry, (example, *extras), compilation.watch.free)
    check_free_axes(gm)
    gm = everywhere = with_class_axis(gm, compilation)
    if ends.positions is not None:
        gm = at_positions(gm, ends.positions, compilation)
    check_output(gm)
    refuse(gm, example.dtype)
    compilation.notes += check_original(model, everywhere, (example, *extras), names, compilation.entry)
    mark_values(gm.graph)
    return gm


def _exported(
    run: Export, model: Model, example: Tensor, axes: Sequence[int], limits: Mapping[int, FreeAxis]
) -> tuple[ExportedProgram, tuple[FreeAxis, ...]]:
    """The exported program, and which sizes its free axes allow."""
    if not axes:
        return run({}), ()
    check_module(model)
    return export_dynamic(run, example, axes, limits)


def _decomposed(
    model: Model, program: ExportedProgram, inputs: Sequence[Tensor], names: Sequence[str]
) -> ExportedProgram:
    """The program in operators of the IR; whatever torch raises meanwhile, in our words."""
    try:
        plain = decompose(program)
        refuse_set_weights(plain, model, inputs, names)
        named_after(plain.graph_module, model)
        return plain
    except FxPullbackError:
        raise
    except Exception as error:
        raise CaptureError(explained(model, error)) from error
