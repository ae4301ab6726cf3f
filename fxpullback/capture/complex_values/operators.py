"""What stands for each operator on complex values: a function of its arguments, pairs for the complex ones.

An operator without a row here is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxpullback.capture.complex_values import pair as pairs
from fxpullback.capture.complex_values.pair import Pair, Real, pair
from fxpullback.graph.ir import aten
from fxpullback.graph.rebuild import Site
from fxpullback.graph.shapes import same_shape
from fxpullback.graph.value import Value, map_tree

Lowering = Callable[..., Any]


def real_type(dtype: torch.dtype | None) -> torch.dtype | None:
    """The type of the parts of a complex type; any other one as it is."""
    return dtype if dtype is None or not dtype.is_complex else dtype.to_real()


def part_by_part(*linear: int) -> Lowering:
    """An operator that is linear in some arguments, by position, with real coefficients: each part by itself."""

    def lower(site: Site, *args: Any) -> Any:
        taken = [_tree_of_pairs(arg) if i in linear else arg for i, arg in enumerate(args)]
        found = [p for arg in taken for p in _pairs_in(arg)]
        present = [any(getattr(p, part) is not None for p in found) for part in ("real", "imag")]

        def run(which: int) -> Any:
            if not present[which]:
                return None
            chosen = [
                map_tree(arg, lambda v: v.both()[which] if isinstance(v, Pair) else v) if i in linear else arg
                for i, arg in enumerate(taken)
            ]
            return call_in_schema_order(site, chosen)

        real, imag = run(0), run(1)
        if isinstance(real, tuple) or isinstance(imag, tuple):
            count = range(len(real if imag is None else imag))
            return tuple(Pair(*(None if part is None else part[i] for part in (real, imag))) for i in count)
        return Pair(real, imag)

    return lower


def call_in_schema_order(site: Site, arguments: Sequence[Any]) -> Any:
    """The operator of a node with other arguments, a complex type among them as that of its parts."""
    target: Any = site.node.target
    schema = target._schema.arguments
    given = [real_type(v) if isinstance(v, torch.dtype) else v for v in arguments]
    named = {s.name: v for s, v in zip(schema, given, strict=True) if s.kwarg_only and v != s.default_value}
    return site.builder.call(
        site.node.target, tuple(v for s, v in zip(schema, given, strict=True) if not s.kwarg_only), named
    )


def _tree_of_pairs(tree: Any) -> Any:
    return map_tree(tree, lambda v: pair(v) if isinstance(v, Value) else v)


def _pairs_in(tree: Any) -> list[Pair]:
    found: list[Pair] = []
    map_tree(tree, lambda v: found.append(v) if isinstance(v, Pair) else None)
    return found


def product(site: Site, a: Any, b: Any) -> Pair:
    """`aten.mul`, of two tensors or with a number."""
    if not isinstance(b, Value | Pair):
        return pairs.scaled(pair(a), b)
    return pairs.times(pair(a), pair(b))


def quotient(site: Site, a: Any, b: Any) -> Pair:
    """`aten.div`: times the conjugate over the squared modulus; by a real one, each part."""
    if not isinstance(b, Value | Pair):
        return pairs.scaled(pair(a), 1 / b)
    if not isinstance(b, Pair) or b.imag is None:
        by = pair(b).some
        return pair(a).each(lambda z: z / by)
    size = pairs.squared_modulus(b)
    return pairs.times(pair(a), b.conj()).each(lambda z: z / size)


def total(sign: int) -> Lowering:
    """`aten.add` and `aten.sub`; a real summand, or a real number, goes to the real part alone."""

    def lower(site: Site, a: Any, b: Any, alpha: Any = 1) -> Pair:
        first = pair(a)
        if not isinstance(b, Value | Pair):
            return _shifted(first, complex(b) * alpha * sign)
        second = pair(b) if alpha == 1 else pairs.scaled(pair(b), alpha)
        join = pairs.plus if sign > 0 else pairs.minus
        return _spread(site, Pair(join(first.real, second.real), join(first.imag, second.imag)))

    return lower


def _shifted(x: Pair, number: complex) -> Pair:
    def by(part: Any, shift: float, written: Any) -> Any:
        return part if shift == 0 else (written if part is None else part) + shift

    real, imag = x.both() if number.real or number.imag else (x.real, x.imag)
    return Pair(by(x.real, number.real, real), by(x.imag, number.imag, imag))


def _spread(site: Site, x: Pair) -> Pair:
    """Both parts in the shape of the sum, where one summand that was broadcast has the only imaginary part."""
    shape = site.node.meta["val"].shape
    return x.each(lambda z: z if same_shape(z.shape, shape) else z.expand(list(shape)))


def matrix_product(site: Site, a: Any, b: Any) -> Pair:
    """`aten.matmul` and what else multiplies matrices."""
    run = site.node.target
    return pairs.bilinear(lambda m, n: site.builder.call(run, (m, n), {}), pair(a), pair(b))


def weighted(site: Site, x: Any, weight: Any, bias: Any = None, *rest: Any) -> Pair:
    """`aten.linear` and the convolutions: a product with a weight, and a bias."""
    run = site.node.target

    def by(m: Real, n: Real) -> Real:
        found: Real = site.builder.call(run, (m, n, None, *rest), {})
        return found

    found = pairs.bilinear(by, pair(x), pair(weight))
    if bias is None:
        return found
    behind = 0 if run is aten.linear.default else found.some.ndim - 2
    held = pair(bias).each(lambda z: z.reshape([-1] + [1] * behind))
    return Pair(pairs.plus(found.real, held.real), pairs.plus(found.imag, held.imag))


def exponential(site: Site, x: Pair) -> Pair:
    """exp(a + ib) = exp(a) (cos(b) + i sin(b))."""
    if x.imag is None:
        return Pair(x.some.exp(), None)
    turned = Pair(x.imag.cos(), x.imag.sin())
    if x.real is None:
        return turned
    size = x.real.exp()
    return turned.each(lambda z: z * size)


def logarithm(site: Site, x: Pair) -> Pair:
    """log(z) = log|z| + i angle(z)."""
    return Pair(pairs.modulus(x).log(), angle(site, x))


def angle(site: Site, x: Pair) -> Real:
    """The angle to the real axis."""
    real, imag = x.both()
    found: Real = torch.atan2(imag, real)
    return found


def power(site: Site, x: Pair, exponent: Any) -> Any:
    """A whole number of factors, up to four."""
    if exponent not in (1, 2, 3, 4):
        return NotImplemented
    found = x
    for _ in range(int(exponent) - 1):
        found = pairs.times(found, x)
    return found


def reciprocal(site: Site, x: Pair) -> Pair:
    """1 / z."""
    size = pairs.squared_modulus(x)
    return x.conj().each(lambda z: z / size)


def polar(site: Site, size: Real, turn: Real) -> Pair:
    """size * exp(i turn)."""
    return Pair(size * turn.cos(), size * turn.sin())


def as_pair(site: Site, x: Real) -> Pair:
    """`aten.view_as_complex`: the last axis holds both parts."""
    return Pair(x.select(-1, 0), x.select(-1, 1))


def as_real(site: Site, x: Pair) -> Real:
    """`aten.view_as_real`: both parts along a last axis."""
    found: Real = torch.stack(list(x.both()), -1)
    return found


def cast(site: Site, x: Any, dtype: torch.dtype | None = None, *rest: Any) -> Any:
    """To another type; to a real one, as torch does it, the real part alone."""
    wanted = real_type(dtype)
    moved = pair(x).each(lambda z: z if wanted is None else z.to(wanted))
    return moved if dtype is None or dtype.is_complex else moved.both()[0]


def padded(site: Site, x: Pair, sides: Any, mode: str = "constant", value: Any = None) -> Pair:
    """`aten.pad`: by what stands at the border, each part; by a number, as `padded_with`."""
    if mode != "constant":
        return x.each(lambda z: site.builder.call(aten.pad.default, (z, sides, mode), {}))
    return padded_with(site, x, sides, value or 0)


def padded_with(site: Site, x: Pair, sides: Any, value: Any = 0) -> Pair:
    """`aten.constant_pad_nd`."""
    return _with_number(x, value, lambda z, n: site.builder.call(aten.constant_pad_nd.default, (z, sides, n), {}))


def filled(site: Site, x: Pair, mask: Real, value: Any) -> Pair:
    """`aten.masked_fill`."""
    return _with_number(x, value, lambda z, n: site.builder.call(aten.masked_fill.Scalar, (z, mask, n), {}))


def _with_number(x: Pair, number: Any, function: Callable[[Real, float], Real]) -> Pair:
    """A function of a part and of that part of a number; a part stays zero everywhere where it is zero in both."""
    number, whole = complex(number), x.both() if number else (x.real, x.imag)
    real = None if x.real is None and number.real == 0 else whole[0]
    imag = None if x.imag is None and number.imag == 0 else whole[1]
    return Pair(*(None if z is None else function(z, n) for z, n in ((real, number.real), (imag, number.imag))))


def taken_from(site: Site, x: Pair, number: Any, alpha: Any = 1) -> Pair:
    """`aten.rsub`: a number less the value."""
    return _shifted(pairs.scaled(x, -alpha), complex(number))


def overwritten(site: Site, x: Pair, number: Any) -> Pair:
    """`aten.fill`: one number everywhere."""
    whole, value = torch.zeros_like(x.some), complex(number)
    return Pair(whole + value.real if value.real else whole, whole + value.imag if value.imag else None)


def norm(site: Site, x: Pair, *rest: Any) -> Any:
    """`aten.linalg_vector_norm`: that of the moduli."""
    return call_in_schema_order(site, (pairs.modulus(x), *rest))


def made(site: Site, *args: Any) -> Any:
    """`aten.zeros`, `full` and their kin with a complex type: the real part by the same operator, no imaginary one."""
    given = [v.some if isinstance(v, Pair) else v for v in args]
    if any(isinstance(v, complex) and v.imag for v in given):
        return NotImplemented
    return Pair(call_in_schema_order(site, [v.real if isinstance(v, complex) else v for v in given]), None)


LOWERINGS: dict[Any, Lowering] = {
    **dict.fromkeys(
        (
            aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.permute.default,
            aten.transpose.int, aten.t.default, aten.slice.Tensor, aten.select.int, aten.unsqueeze.default,
            aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.expand.default, aten.repeat.default,
            aten.flip.default, aten.roll.default, aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default,
            aten.clone.default, aten.contiguous.default, aten.alias.default, aten.detach.default,
            aten.lift_fresh_copy.default, aten.neg.default, aten.cumsum.default, aten.index_select.default,
            aten.gather.default, aten.index.Tensor, aten.unfold.default, aten.tril.default, aten.triu.default,
            aten.diagonal.default, aten.sum.dim_IntList, aten.mean.dim, aten.cat.default, aten.stack.default,
        ),
        part_by_part(0),
    ),
    **dict.fromkeys(
        (aten.slice_scatter.default, aten.select_scatter.default, aten.copy.default), part_by_part(0, 1)
    ),
    aten.where.self: part_by_part(1, 2),
    aten.masked_fill.Scalar: filled,
    aten.constant_pad_nd.default: padded_with,
    aten.pad.default: padded,
    aten.mul.Tensor: product,
    aten.mul.Scalar: product,
    aten.div.Tensor: quotient,
    aten.div.Scalar: quotient,
    aten.add.Tensor: total(1),
    aten.add.Scalar: total(1),
    aten.sub.Tensor: total(-1),
    aten.sub.Scalar: total(-1),
    **dict.fromkeys(
        (aten.mm.default, aten.bmm.default, aten.matmul.default, aten.mv.default, aten.dot.default), matrix_product
    ),
    **dict.fromkeys(
        (
            aten.linear.default, aten.convolution.default, aten.conv1d.default, aten.conv2d.default,
            aten.conv3d.default, aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
        ),
        weighted,
    ),
    **dict.fromkeys(
        (
            aten.zeros.default, aten.ones.default, aten.full.default, aten.empty.memory_format, aten.zeros_like.default,
            aten.ones_like.default, aten.new_zeros.default, aten.new_ones.default, aten.full_like.default,
        ),
        made,
    ),
    aten._conj.default: lambda site, x: x.conj(),
    aten.conj_physical.default: lambda site, x: x.conj(),
    aten._conj_physical.default: lambda site, x: x.conj(),
    aten._to_copy.default: cast,
    aten.to.dtype: cast,
    aten.abs.default: lambda site, x: pairs.modulus(x),
    aten.angle.default: angle,
    aten.linalg_vector_norm.default: norm,
    aten.rsub.Scalar: taken_from,
    aten.fill.Scalar: overwritten,
    aten.view_as_real.default: as_real,
    aten.view_as_complex.default: as_pair,
    aten.complex.default: lambda site, real, imag: Pair(real, imag),
    aten.polar.default: polar,
    aten.exp.default: exponential,
    aten.log.default: logarithm,
    aten.square.default: lambda site, x: pairs.times(x, x),
    aten.pow.Tensor_Scalar: power,
    aten.reciprocal.default: reciprocal,
}  # fmt: skip
"""By operator. Where a function returns NotImplemented, the call is refused as well."""
