"""Taps: where the contribution is read off, and what each place of the picture carries of the logit there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import fx

from fxpullback.contract.errors import TapError
from fxpullback.graph.compilation import Compilation
from fxpullback.ledger import Ledger
from fxpullback.taps.choose import Chosen, Values, automatic, named, parts_of
from fxpullback.taps.contribution import Taps, found_in
from fxpullback.taps.push import pushes_of

AUTO = "auto"
SHARE, PUSHED = "share", "pushed"


class TapWarning(UserWarning):
    """A contribution was asked for and the network has no place where one could be read off."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    Attributes:
        names: modules; none for the automatic choice; None for no taps at all.
        each: each tap's own map as an output besides.
        parts: the parts of the logit as an output besides.
        pushed: biases as contributions where they act.
    """

    names: tuple[str, ...] | None = None
    each: bool = False
    parts: bool = False
    pushed: bool = False

    @classmethod
    def of(cls, taps: str | Sequence[str] | None, each: bool = False, bias: str | None = None) -> Wanted:
        """Check what `compile` was given."""
        if bias not in (None, SHARE, PUSHED):
            raise TapError(f"bias is {bias!r}; give {SHARE!r} for the parts of every logit, {PUSHED!r}, or None.")
        if bias == PUSHED and taps is None:
            raise TapError(f"bias={PUSHED!r} gives biases as contributions, and there are no taps: pass taps='auto'.")
        parts, pushed = bias is not None, bias == PUSHED
        if taps is None:
            if each:
                raise TapError("each_tap gives each tap's own map, and there are no taps: pass taps='auto' as well.")
            return cls(parts=parts)
        names = (taps,) if isinstance(taps, str) else tuple(taps)
        if not names or not all(isinstance(name, str) and name for name in names):
            raise TapError(f"taps is {taps!r}; give 'auto', names of modules, or None for no contribution.")
        if AUTO in names and len(names) > 1:
            raise TapError(f"taps is {taps!r}; give 'auto' or names of modules, not both.")
        return cls(() if names == (AUTO,) else names, each, parts, pushed)


def choose_taps(
    captured: fx.GraphModule, folded: fx.GraphModule, ledger: Ledger, wanted: Wanted, compilation: Compilation
) -> Taps:
    """Find the values that are tapped.

    Args:
        captured: the captured graph, as `capture` returns it.
        folded: the graph that is differentiated, made of it.
        ledger: says which operators a cotangent reaches.
        wanted: what was asked for.
        compilation: what the stages of one compilation share.

    Returns:
        The taps; none where none were asked for, or where no value lies on a grid, with a warning.

    Raises:
        TapError: a module that is named does not exist or has no contribution to show.
    """
    if wanted.names is None:
        return Taps(parts=wanted.parts)
    reached = {row.node for row in ledger.rows if row.verdict not in ("frozen", "constant", "blocking") or row.injected}
    parts = list(parts_of(captured.graph)) or [""]
    if wanted.pushed and len(parts) > 1:
        raise TapError(
            f"bias={PUSHED!r}: of several explained inputs none is the place of a bias. Pass bias={SHARE!r}."
        )
    every = [Values(captured.graph, reached, compilation.operators, part) for part in parts]
    chosen = [one for values in every for one in _chosen(values, wanted, every)]
    if not chosen:
        warnings.warn(
            "no contribution: no value of this network lies on a grid of places, so that there is nowhere to read one "
            "off. The pullback is there as always.",
            TapWarning,
            stacklevel=4,
        )
        return Taps(parts=wanted.parts)
    values = every[0]
    for part in parts:
        _check_grids([one for one in chosen if one.of == part], every)
    taps = Taps(found_in(folded, chosen), wanted.each, "named" if wanted.names else AUTO, wanted.parts)
    return _with_pushes(taps, folded, values) if wanted.pushed else taps


def _chosen(values: Values, wanted: Wanted, every: Sequence[Values]) -> list[Chosen]:
    """The taps of one explained input. Of several inputs a module that is named is looked for in each."""
    if not wanted.names:
        return automatic(values, words=values.is_of_words)
    if len(every) == 1:
        return named(values, wanted.names)
    found = []
    for name in wanted.names:
        try:
            found += named(values, [name])
        except TapError:
            if not any(_is_tap(other, name) for other in every):
                raise
    return found


def _is_tap(values: Values, name: str) -> bool:
    try:
        named(values, [name])
    except TapError:
        return False
    return True


def _check_grids(chosen: Sequence[Chosen], every: Sequence[Values]) -> None:
    """Refuse taps that cannot be put on one grid."""
    grids = {values.grids[one.node] for one in chosen for values in every if values.of == one.of}
    if any(None in one.plan.grid for one in chosen) and len(grids) > 1:
        raise TapError(
            f"taps at {', '.join(one.name for one in chosen)} cannot be put on one grid, since its size is free. Name "
            "one module, or fix the size."
        )
    if len({len(one.plan.grid) for one in chosen}) > 1:
        listed = ", ".join(f"{one.name} {list(one.plan.grid)}" for one in chosen)
        raise TapError(
            f"taps on grids of different numbers of axes cannot be one map: {listed}. Name such of one kind."
        )


def _with_pushes(taps: Taps, folded: fx.GraphModule, values: Values) -> Taps:
    """The taps, and where biases are carried back as contributions."""
    pushes = pushes_of(folded, values, taps.grid)
    if not pushes:
        warnings.warn(
            "no bias contribution: no layer with a bias lies on a known grid of as many axes as the contribution's. "
            "What biases add is in `parts`, as a number.",
            TapWarning,
            stacklevel=5,
        )
    return replace(taps, pushes=pushes)
