"""The certificate: compiled graph against model, against autograd, and against itself, on inputs it has not seen.

Forward values alone prove nothing about an adjoint (a lost detach changes none of them), and the inputs a graph was
made with prove nothing about others (a constant would pass). So everything here is drawn anew, at other batch sizes
than the one captured, and the pullback is compared with eager autograd through the injected form.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from fxpullback.certify.cost import FEW, samples
from fxpullback.certify.divergence import first_forward_difference, first_pullback_difference
from fxpullback.certify.eager import run_eagerly, soft_pullback, with_cancellation
from fxpullback.certify.fresh import Looks, Spread, cotangents, fresh_inputs, fresh_target
from fxpullback.certify.magnified import following_rounding, relative
from fxpullback.certify.parts import is_complete, part_checks
from fxpullback.contract.certificate import Certificate, Check, at_least, at_most
from fxpullback.contract.contribution import CONTRIBUTION, output_of
from fxpullback.graph.collection import seldom_collected
from fxpullback.graph.float64 import Memo, in_float64
from fxpullback.graph.inputs import Inputs
from fxpullback.graph.ir import calls, operator_name
from fxpullback.graph.modes import plain_mode
from fxpullback.taps.contribution import Taps
from fxpullback.unroll import Soft

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled

OTHER_SIZES = 2  # drawn where sizes are free
EXACT_BOUND = 1e-9  # float64 against float64, the same arithmetic in another order
FOLD_BOUND = 1e-4  # float64, batch-norm weights rounded to the model's own type after folding
ASCENT_BOUND = 1e-6  # float64, rounding carried through every step


@plain_mode()
@seldom_collected()
def verify(pb: Compiled, *, seed: int = 0) -> Certificate:
    """Verify a compiled model; see `Pullback.verify`."""
    looks, count = Looks.of(pb), samples(pb.captured)
    inputs = looks.draw(count, seed, pb.example)
    wide_inputs = inputs.double()
    u = cotangents(count, pb.classes, pb.example, seed + 1).double()
    memo: Memo = {}
    wide = {name: in_float64(getattr(pb, name), memo) for name in ("captured", "rewritten", "folded", "step", "graph")}
    note = _enliven(wide["captured"], memo, wide_inputs, seed)
    with torch.no_grad():
        logits, pullback, *maps = wide["step"](*wide_inputs, u)
    oracle, slack = with_cancellation(wide["folded"], wide_inputs, u, pb.taps)
    checks = [
        *(pb.original.checks(pb, seed) if pb.original is not None else ()),
        *_logits(pb, wide, inputs, logits, note),
        *_adjoint(pb, wide, inputs, u, (pullback, *maps), oracle, slack),
        *_linearity(wide, wide_inputs[: 1 if count == FEW else count], u, pullback, seed),
        _dot_test(wide, wide_inputs, u, pullback, seed),
        *_program(pb, looks, wide, wide_inputs, seed, slack),
        _batch(wide, wide_inputs, u, (logits, pullback, *maps), slack),
        *_sizes(pb, wide, looks, seed, slack),
    ]
    return Certificate(tuple(following_rounding(checks, pb, wide["captured"], inputs)), environment(seed, count))


def environment(seed: int, count: int) -> dict[str, Any]:
    """What the checks ran on."""
    return {"torch": torch.__version__, "python": platform.python_version(), "seed": seed, "batches": [1, count]}


def _logits(
    pb: Compiled, wide: Mapping[str, fx.GraphModule], inputs: Inputs, lowered: Tensor, note: str
) -> list[Check]:
    with torch.no_grad():
        plain, injected = pb.captured(*inputs)[0], pb.rewritten(*inputs)[0]
        captured = wide["captured"](*inputs.double())[0]
    exact = 0.0 if torch.equal(plain, injected) else max(relative(injected, plain), 1e-300)
    detail = "" if exact == 0.0 else first_forward_difference(pb.captured, pb.rewritten, inputs, 0.0)
    folded, where, bound = relative(lowered, captured), "", FOLD_BOUND
    if not folded <= FOLD_BOUND:
        bound = max(bound, relative(plain.double(), captured))
        where = "the bound is the rounding of torch's own type"
    if not folded <= bound:
        where = first_forward_difference(wide["captured"], wide["step"], inputs.double(), FOLD_BOUND)
    return [
        at_most("logits: injected form against the model, bit for bit", exact, 0.0, detail),
        at_most("logits: lowered graph against the model", folded, bound, where),
        at_least("logits differ between inputs", _variation(captured), 1e-6, note),
    ]


def _enliven(captured: fx.GraphModule, memo: Memo, inputs: Inputs, seed: int) -> str:
    """Draw all-zero weights at random where they make the model's own logits constant: else there is nothing to see.

    A freshly made network may end in a head of zeros; every pullback of it is zero, a wrong one too. All the float64
    copies share their constants, so one drawing serves them all.
    """
    with torch.no_grad():
        if _variation(captured(*inputs)[0]) > 0:
            return ""
    generator = torch.Generator().manual_seed(seed)
    dead = [t for t in memo.values() if t.is_floating_point() and t.ndim > 1 and not bool(t.any())]
    for tensor in dead:
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * 0.02)
    return "the model's own logits are constant: checked with its all-zero weights drawn at random" if dead else ""


def _variation(values: Tensor) -> float:
    """How much samples of a batch differ, relative to the largest entry."""
    return relative(values[1:], values[:1].expand_as(values[1:])) if values.abs().max() > 0 else 0.0


def _adjoint(
    pb: Compiled,
    wide: Mapping[str, fx.GraphModule],
    narrow: Inputs,
    u: Tensor,
    results: Sequence[Tensor],
    oracle: Sequence[Tensor],
    slack: Mapping[str, float],
) -> list[Check]:
    inputs, (found, *maps) = narrow.double(), results
    logits, wanted, *tapped = oracle
    # Two samples: at batch 1 torch's own adjoint of batch norm is wrong where a cotangent arrives transposed.
    before = pb.taps.held_in(wide["rewritten"])
    _, unfolded, *unfolded_maps = soft_pullback(wide["rewritten"], inputs[:2], u[:2], before)
    error, detail = relative(found, wanted), ""
    if not error <= EXACT_BOUND:
        detail = first_pullback_difference(wide["folded"], wide["step"], inputs, u, EXACT_BOUND)
    size = float(wanted.abs().max()) if bool(torch.isfinite(wanted).all()) else float("nan")
    return [
        at_most("pullback: graph against autograd, float64", error, EXACT_BOUND, detail),
        _before_folding(pb, narrow[:2], u[:2], found[:2], unfolded, detail),
        at_least("pullback is not zero", size, 1e-300),
        *_contributions(pb.taps, maps, tapped, unfolded_maps, slack),
        *_parts(pb, maps, tapped, logits, u),
    ]


def _contributions(
    taps: Taps,
    found: Sequence[Tensor],
    wanted: Sequence[Tensor],
    unfolded: Sequence[Tensor],
    slack: Mapping[str, float],
) -> list[Check]:
    """Of every tap: its value times the gradient that autograd has at that very node, folded and not; the worst.

    Errors are relative to the absolute products that are summed.
    """
    if not taps:
        return []
    found, wanted, unfolded = (maps[: len(tuple(taps))] for maps in (found, wanted, unfolded))
    triples = list(zip(taps, found, wanted, unfolded, strict=True))
    errors = {tap.name: relative(here, there) / slack[tap.name] for tap, here, there, _ in triples}
    before = {tap.name: relative(here[:2], there) / slack[tap.name] for tap, here, _, there in triples}
    sizes = {tap.name: float(there.abs().max()) for tap, there in zip(taps, wanted, strict=True)}
    return [
        _worst(errors, "contribution: graph against autograd at that node, float64", EXACT_BOUND),
        _worst(before, "contribution: graph against autograd before folding", FOLD_BOUND),
        at_least("contribution is not zero", min(sizes.values()), 1e-300),
    ]


def _parts(pb: Compiled, found: Sequence[Tensor], wanted: Sequence[Tensor], logits: Tensor, u: Tensor) -> list[Check]:
    """Of the parts, which stand behind the maps of the taps."""
    if not pb.taps.parts:
        return []
    complete = is_complete(pb.folded, pb.ledger, pb.extensions.vjp_table(), pb.extensions.operators())
    pushed = (
        [at_most("bias contribution: graph against autograd, float64", relative(found[-2], wanted[-2]), EXACT_BOUND)]
        if pb.taps.pushes
        else []
    )
    return [*pushed, *part_checks(found[-1], wanted[-1], logits, u, complete)]


def _worst(errors: Mapping[str, float], name: str, bound: float) -> Check:
    """One check for several taps; where it fails it names the tap."""
    tap = max(errors, key=lambda name: errors[name] if errors[name] == errors[name] else float("inf"))
    return at_most(name, errors[tap], bound, "" if errors[tap] <= bound else f"at {tap}")


def _before_folding(pb: Compiled, inputs: Inputs, u: Tensor, found: Tensor, wanted: Tensor, detail: str) -> Check:
    """Folding rounds weights to the model's own type: it may be off by what that type is off without it."""
    error, bound = relative(found, wanted), FOLD_BOUND
    if error > FOLD_BOUND:
        _, rounded, *_ = soft_pullback(pb.rewritten, inputs, u.to(inputs.x.dtype))
        bound = max(FOLD_BOUND, relative(rounded.double(), wanted))
        detail = detail or "the bound is the rounding of torch's own type"
    return at_most("pullback: graph against autograd before folding", error, bound, detail)


def _linearity(wide: Mapping[str, fx.GraphModule], inputs: Inputs, u: Tensor, of_u: Tensor, seed: int) -> list[Check]:
    count = inputs.x.shape[0]
    u, of_u, w = u[:count], of_u[:count], cotangents(count, u.shape[1], u, seed + 2)
    with torch.no_grad():
        of_w, both = wide["step"](*inputs, w)[1], wide["step"](*inputs, 2.0 * u - 3.0 * w)[1]
    return [
        at_most("pullback: linear in the cotangent", relative(both, 2.0 * of_u - 3.0 * of_w), EXACT_BOUND),
        at_least("pullback differs between cotangents", relative(of_u, of_w), 1e-6),
    ]


def _dot_test(wide: Mapping[str, fx.GraphModule], inputs: Inputs, u: Tensor, pullback: Tensor, seed: int) -> Check:
    """<u, J v> = <J^T u, v>, J v by forward mode through the injected form."""
    name = "pullback: dot test with forward mode"
    foreign = _foreign(wide["folded"])
    if foreign:
        return at_most(name, 0.0, EXACT_BOUND, f"not run, torch drops what is pushed through {foreign} without a word")
    one = inputs[:1]
    v = fresh_inputs(Spread.of(torch.zeros_like(one.x)), 1, seed + 3).to(one.x)
    try:
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's forward mode scripts helpers of its own
            pushed: Tensor = torch.func.jvp(lambda z: wide["folded"](*one.at(z))[0], (one.x,), (v,))[1]
    except (NotImplementedError, RuntimeError) as error:
        return at_most(name, 0.0, EXACT_BOUND, f"not run, torch has no forward mode here: {str(error).splitlines()[0]}")
    left, products = (u[:1] * pushed).sum(), pullback[:1] * v
    return at_most(name, float((left - products.sum()).abs() / products.abs().sum()), EXACT_BOUND)


def _foreign(gm: fx.GraphModule) -> str:
    """Operators that are not torch's own: under forward mode torch takes them for constants."""
    named = {operator_name(node.target) for node in calls(gm.graph) if isinstance(node.target, torch._ops.OpOverload)}
    return ", ".join(sorted(name for name in named if name.partition(".")[0] not in ("aten", "fxpullback")))


def _program(
    pb: Compiled,
    looks: Looks,
    wide: Mapping[str, fx.GraphModule],
    inputs: Inputs,
    seed: int,
    slack: Mapping[str, float],
) -> list[Check]:
    """The compiled graph with its target, against the program run by eager autograd, on one sample."""
    one = inputs[1:2]
    given = fresh_target(pb.target, 1, pb.classes, one.x, seed + 4)
    wanted = run_eagerly(wide["folded"], pb.program, pb.target, one, given, pb.taps)
    wanted = wanted if pb.entry is None else pb.entry.outputs(wanted)
    with torch.no_grad():
        found = wide["graph"](*looks.passed(one), *([] if given is None else [given]))
    bound = EXACT_BOUND if isinstance(pb.program, Soft) else ASCENT_BOUND
    label = type(pb.program).__name__.lower()
    sums = {output_of(name): factor for name, factor in slack.items()}
    worst = max(slack.values(), default=1.0)
    sums |= {name: worst for name in pb.output_names if name.startswith(CONTRIBUTION) and name not in sums}
    return [
        at_most(
            f"{label}: {name} against autograd, float64", relative(value, wanted[name]) / sums.get(name, 1.0), bound
        )
        for name, value in zip(pb.output_names, found, strict=True)
    ]


def _sizes(
    pb: Compiled,
    wide: Mapping[str, fx.GraphModule],
    looks: Looks,
    seed: int,
    slack: Mapping[str, float],
) -> list[Check]:
    """At other sizes, where sizes are free: logits against the model, pullback against autograd."""
    checks = []
    for draw in range(OTHER_SIZES if pb.free else 0):
        elsewhere = looks.at(pb.free, seed + draw)
        inputs = elsewhere.draw(2, seed + draw, pb.example)
        u = cotangents(2, pb.classes, pb.example, seed + 5).double()
        with torch.no_grad():
            plain, injected = pb.captured(*inputs)[0], pb.rewritten(*inputs)[0]
            found = wide["step"](*inputs.double(), u)
        wanted = soft_pullback(wide["folded"], inputs.double(), u, pb.taps)
        place = f"size {elsewhere.size}"
        exact = 0.0 if torch.equal(plain, injected) else max(relative(injected, plain), 1e-300)
        checks += [
            at_most(f"{place}: injected form against the model, bit for bit", exact, 0.0),
            at_most(f"{place}: logits of the lowered graph", relative(found[0], wanted[0]), EXACT_BOUND),
            at_most(f"{place}: pullback against autograd, float64", relative(found[1], wanted[1]), EXACT_BOUND),
            *(
                at_most(f"{place}: {name}, float64", relative(here, there) / factor, EXACT_BOUND)
                for name, here, there, factor in zip(
                    pb.taps.read, found[2:], wanted[2:], _factors(slack, len(found) - 2), strict=True
                )
            ),
        ]
    return checks


def _factors(slack: Mapping[str, float], count: int) -> list[float]:
    """What errors of the maps, and then of the parts, are divided by."""
    return [*slack.values(), *[1.0] * (count - len(slack))]


def _batch(
    wide: Mapping[str, fx.GraphModule],
    inputs: Inputs,
    u: Tensor,
    together: Sequence[Tensor],
    slack: Mapping[str, float],
) -> Check:
    with torch.no_grad():
        alone = wide["step"](*inputs[-1:], u[-1:])  # not the middle one, which a reversed batch leaves in its place
    factors = [1.0, 1.0, *_factors(slack, len(together) - 2)]
    error = max(relative(a, t[-1:]) / f for a, t, f in zip(alone, together, factors, strict=True))
    detail = "" if error <= EXACT_BOUND else _mixing(wide["folded"], inputs, u)
    return at_most("a sample alone gives what it gives in a batch", error, EXACT_BOUND, detail)


def _mixing(model: fx.GraphModule, inputs: Inputs, u: Tensor) -> str:
    """Whether the model itself, by autograd, lets the samples of a batch see each other."""
    together, alone = soft_pullback(model, inputs, u), soft_pullback(model, inputs[-1:], u[-1:])
    if all(relative(a, t[-1:]) <= EXACT_BOUND for a, t in zip(alone, together, strict=True)):
        return "the model keeps its samples apart; the graph does not"
    return (
        "the model itself mixes the samples of a batch, so that none has an explanation of its own: "
        "look for an attention, a mean or a norm over the batch axis"
    )
