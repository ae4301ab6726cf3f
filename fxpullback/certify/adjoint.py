"""What `compile` itself checks of a pullback: it is the derivative of the injected form, as autograd has it.

The certificate checks the same, and more, when a file is written. But a pullback is run without one, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, fx

from fxpullback.certify.divergence import first_pullback_difference
from fxpullback.certify.eager import soft_pullback
from fxpullback.certify.fresh import Looks, cotangents, inside
from fxpullback.certify.magnified import relative, rounded
from fxpullback.contract.errors import DifferentiateError
from fxpullback.graph.float64 import Memo, in_float64
from fxpullback.graph.inputs import Inputs
from fxpullback.graph.ir import outputs

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled

P = TypeVar("P", bound="Compiled")

BATCH, SEED = 2, 5  # at a batch of one torch's own adjoint of batch norm is wrong
NEAR = 1e-3  # in the model's own type, whose rounding may be magnified: beyond it float64 decides
BOUND = 1e-6  # in float64
MOST = 0.1  # however much a model magnifies rounding: beyond that nothing is told apart, as the certificate says


def judged(pb: P) -> P:
    """What was compiled, once its pullback is autograd's, of two fresh samples and a random cotangent.

    Args:
        pb: what was compiled; it is returned as it is.

    Raises:
        DifferentiateError: says where the first cotangent differs.
    """
    looks = Looks.of(pb)
    inputs = inside(looks, looks.draw(BATCH, SEED, pb.example))
    if _gap(pb.folded, pb.step, inputs) <= NEAR:
        return pb
    memo: Memo = {}
    wide = inputs.double()
    folded, step = in_float64(pb.folded, memo), in_float64(pb.step, memo)
    gap = _gap(folded, step, wide)
    if not gap <= BOUND and not gap <= 10 * (own := _magnified(folded, wide)) and own < MOST:
        where = first_pullback_difference(folded, step, wide, _cotangent(folded, wide), BOUND)
        raise DifferentiateError(
            f"the pullback of the graph is off by {gap:.1e} from what autograd makes of the same graph: {where}. A VJP "
            "rule is wrong there: one passed in, or one of fxpullback; then please report it with the model."
        )
    return pb


def _magnified(folded: fx.GraphModule, inputs: Inputs) -> float:
    """What the last digit of the input makes of autograd's own pullback; infinite where that is no number."""
    u = _cotangent(folded, inputs)
    wanted, other = (soft_pullback(folded, given, u)[1] for given in (inputs, rounded(inputs)))
    found = relative(other, wanted)
    return found if found == found else float("inf")


def _cotangent(folded: fx.GraphModule, inputs: Inputs) -> Tensor:
    """A random cotangent of the logits."""
    classes = int(outputs(folded.graph)[0].meta["val"].shape[-1])
    return cotangents(BATCH, classes, inputs.x, SEED)


def _gap(folded: fx.GraphModule, step: fx.GraphModule, inputs: Inputs) -> float:
    """How far the two pullbacks are apart, relative to the largest entry; 0 where autograd has none."""
    u = _cotangent(folded, inputs)
    try:
        wanted = soft_pullback(folded, inputs, u)[1]
    except NotImplementedError:  # torch has no derivative of an operator for which there is a rule
        return 0.0
    with torch.no_grad():
        found = step(*inputs, u)[1]
    if not bool(torch.isfinite(wanted).all()):  # where the model's own derivative is none, there is nothing to hold to
        return 0.0
    return relative(found, wanted) if bool(wanted.any()) or bool(found.any()) else 0.0
