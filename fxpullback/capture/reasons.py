"""Why a model cannot be captured, in words: the reason, the user's own line, and a rewrite that works."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

SCRIPTED = (
    "is compiled by torch.jit, and its Python is no longer there to be captured. Compile the nn.Module it was made of, "
    "with the same weights: module.load_state_dict(scripted.state_dict())."
)

CONVERTED = "it is converted to int8, whose operators have no derivative"
OF_CONVERTED = (
    "Compile the model it was converted from: in floating point, or as it was prepared, with fake quantisation."
)

FIXED_BATCH = (
    "Export it with a symbolic batch, torch.export.export(model, (x,), dynamic_shapes=({0: "
    'torch.export.Dim("batch")},)), from a batch of two.'
)

SWITCH_OFF = (
    "An observer is on, and moves with every input the range that the input is then rounded in: two calls of the model "
    "do not agree. Switch observers off, model.apply(torch.ao.quantization.disable_observer), and compile again."
)

_LIBRARIES = ("torch", "fxpullback", "sympy", "functorch", "contextlib", "functools", "copy")


@dataclass(frozen=True)
class _Reason:
    """One kind of failure.

    Attributes:
        told_by: what the text of the error, or the name of a function it passed, contains.
        why: the reason.
        advice: what to do.
    """

    told_by: tuple[str, ...]
    why: str
    advice: str


_REASONS = (
    _Reason(
        ("pack_padded_sequence", "pad_packed_sequence", "pack_sequence", "nn/utils/rnn.py"),
        "it packs sequences, and how long each one is depends on values",
        "Run the recurrent layer on the padded batch and take what belongs to each length: "
        "y[torch.arange(x.shape[0]), n - 1] for the last step, or a mean weighted by a mask of the steps.",
    ),
    _Reason(
        ("fake tensor in the exported program constant's list", "assigned during export", "was assigned during"),
        "its forward sets a weight or an attribute of the module",
        "Compute the weight in a parametrisation, a module with forward(self, weight), and register it: "
        "torch.nn.utils.parametrize.register_parametrization(layer, 'weight', MaxNorm()); or compute it once in "
        "__init__.",
    ),
    _Reason(
        ("__obj_flatten__", "quantized::", "PackedParams", "aten.dequantize", "aten.quantize_per_"),
        CONVERTED,
        OF_CONVERTED,
    ),
    _Reason(
        ("not an instance of torch.nn.Parameter",),
        "a part of it is compiled by torch.jit",
        "Put the nn.Module there that it was made of, with the same weights.",
    ),
)

_OF_VALUES = _Reason(
    (),
    "what it computes with depends on the values of the input",
    "Keep numbers as tensors (x.mean() in place of x.mean().item()), write a branch as torch.where(condition, a, b), "
    "and y[y < 0] *= a as y = torch.where(y < 0, y * a, y).",
)


def explained(model: object, error: BaseException, batched: Sequence[int] = ()) -> str:
    """What is said of a model that torch.export could not capture.

    Args:
        model: the model.
        error: what torch raised.
        batched: the numbers of the example inputs that were taken for batched.
    """
    place = own_place(error)
    why, advice = _reason(error, batched)
    at = f", at {place}" if place else ""
    return f"torch.export cannot capture {type(model).__name__}: {why}{at}. {advice}\n  torch said: {_said(error)}"


def _reason(error: BaseException, batched: Sequence[int]) -> tuple[str, str]:
    text = " ".join(str(one) for one in _chain(error))
    frames = [frame for one in _chain(error) for frame in traceback.extract_tb(one.__traceback__)]
    passed = {name for frame in frames for name in (frame.name, "/".join(Path(frame.filename).parts[-3:]))}
    text += " ".join(frame.line or "" for frame in frames if _is_own(frame.filename))
    for reason in _REASONS:
        if any(sign in text or sign in passed for sign in reason.told_by):
            return reason.why, reason.advice
    kinds = {type(one).__name__ for one in _chain(error)}
    if any("DataDependent" in kind or "PendingUnbacked" in kind for kind in kinds) or _is_of_values(text):
        return _OF_VALUES.why, _OF_VALUES.advice
    if "in output, which is not a known type" in text:
        kind = text.partition("class '")[2].partition("'")[0].rpartition(".")[2]
        return (
            f"it returns a {kind}, which torch.export does not take apart",
            "Wrap the model in a module whose forward returns the logits alone.",
        )
    if "constraint" in text.lower() or "specializ" in text.lower():
        return (
            "it fixes the batch size",
            "Take the batch from x.shape[0] instead of a constant, so that one graph serves every batch size. A list "
            "of one tensor a sample, as roi_align takes boxes, has the length of one batch: join it, with the sample's "
            "number in a column." + _of_batched(batched),
        )
    return (
        f"on a batch of two it raises {type(error).__name__}",
        "Check that model(x) runs on a batch of two: fxpullback leaves the batch free, and captures with two samples."
        + _of_batched(batched),
    )


def _of_batched(batched: Sequence[int]) -> str:
    if not batched:
        return ""
    return (
        f" Inputs {', '.join(map(str, batched))} were taken for batched, as their leading extent is the batch of the "
        "examples; where one is not, pass examples of a batch of another size."
    )


def _is_of_values(text: str) -> bool:
    return any(sign in text.lower() for sign in ("data-dependent", "data dependent", "unbacked symbol"))


def scripted_part(model: object) -> str | None:
    """What is said of a model that torch.jit compiled, or that holds a part of that kind; None where it is neither."""
    if isinstance(model, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        return f"a {type(model).__name__} {SCRIPTED}"
    for path, part in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(part, torch.jit.ScriptModule):
            return f"{type(model).__name__}.{path} {SCRIPTED}"
    return None


def own_place(error: BaseException) -> str:
    """`file.py:line` of the innermost frame of the user's own that an error passed; empty where there is none."""
    for one in _chain(error):
        for frame in reversed(traceback.extract_tb(one.__traceback__)):
            if _is_own(frame.filename):
                return f"{Path(frame.filename).name}:{frame.lineno}"
    return ""


def _is_own(filename: str) -> bool:
    parts = Path(filename).parts
    if filename.startswith("<") or any(part in _LIBRARIES for part in parts[-6:-1]):
        return False
    return Path(filename).stem not in _LIBRARIES


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _said(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
