"""Networks that magnify rounding: no two ways to compute them agree, and the bounds of a certificate follow that.

By how much a network magnifies is measured: its logits in its own type against those in float64. What float64 then adds
is the same in the proportion of the types' precisions. Bounds are raised for checks that failed, by that alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from fxpullback.contract.certificate import Check, at_most
from fxpullback.graph.inputs import Inputs

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled

MAGNIFIED = 1e-2
"""Logits in the model's own type against float64, relative: no trained network is near."""

ROUNDING = "rounding: the model's own logits in its type against float64"
ROOM = 100.0  # by how much more float64 may be off than the proportion says: cotangents pass further operators
MOST = 1e-3  # no check in float64 is held to less than that
FOLLOWING = 1e-6  # checks with a bound of this or less compare float64 with float64

HELP = (
    "Train it, or set the statistics of its batch norms by running it on data; scale weights that nearly cancel each "
    "other. Or explain it in float64: fxpullback.compile(model.double(), x.double()) runs in torch, and has no file."
)


def relative(found: Tensor, wanted: Tensor) -> float:
    """Largest difference relative to the largest entry of what is wanted."""
    if found.shape != wanted.shape:
        return float("nan")
    scale = float(wanted.abs().max())
    return float((found - wanted).abs().max()) / scale if scale > 0 else float((found - wanted).abs().max())


def following_rounding(
    checks: Sequence[Check], pb: Compiled, captured: fx.GraphModule, inputs: Inputs
) -> Sequence[Check]:
    """The checks, where one failed with bounds that follow by how much the model magnifies rounding.

    Args:
        checks: those of a compiled model.
        pb: what was compiled.
        captured: its captured graph in float64.
        inputs: a fresh batch in the model's own type.

    Returns:
        The same checks where all passed, or the model magnifies nothing. Where its logits are off by more than
        `MAGNIFIED`, a failing check says so: an explanation in its own type would be of rounding.
    """
    if all(check.passed for check in checks):
        return checks
    with torch.no_grad():
        wanted = captured(*inputs.double())[0]
        off = relative(pb.captured(*rounded(inputs))[0].double(), wanted)
    if not off < float("inf"):
        return checks
    proportion = torch.finfo(torch.float64).eps / torch.finfo(inputs.x.dtype).eps
    bound = min(MOST, ROOM * off * proportion)
    kind = str(inputs.x.dtype).removeprefix("torch.")
    why = f"the bound follows the model, whose logits in {kind} are off by {off:.1e}"
    found = [_raised(c, bound, why) if not c.passed and 0 < c.bound <= min(FOLLOWING, bound) else c for c in checks]
    if off > MAGNIFIED:
        detail = (
            f"The model itself magnifies rounding: its logits in {kind} are off by {off:.1e} of those in float64, and "
            "so is any explanation of them"
        )
        found.append(at_most(ROUNDING, off, MAGNIFIED, detail))
    return found


def rounded(inputs: Inputs) -> Inputs:
    """The inputs in the model's own type; in float64, where nothing is rounded anew, off by its last digit."""
    if inputs.x.dtype is not torch.float64:
        return inputs
    signs = torch.randint(2, inputs.x.shape, generator=torch.Generator().manual_seed(0)).to(inputs.x) * 2 - 1
    return inputs.at(inputs.x * (1 + torch.finfo(torch.float64).eps * signs))


def _raised(check: Check, bound: float, why: str) -> Check:
    """A check with another bound; one that fails all the same keeps what it says."""
    raised = at_most(check.name, check.measured, bound, why)
    return raised if raised.passed else at_most(check.name, check.measured, bound, f"{check.detail}. {why}".strip(". "))
