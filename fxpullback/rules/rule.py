"""What a gate rule is: one torch function with its operator, temperature and verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Verdict = Literal["softened", "frozen", "linear", "exact", "constant"]
SoftExpression = Callable[..., Tensor]


@dataclass(frozen=True)
class Rule:
    """A gate rule.

    Attributes:
        name: what `with_temperature` and `keep_exact` call it.
        soft: the soft expression, a torch function of the operator's arguments (and `temperature=`).
        targets: the operators it applies to; empty for a rule that a pattern applies.
        temperature: default temperature, or None for a rule without one.
        verdict: what the ledger says of an operator under this rule.
        spread: factor on the spread of `calibrate` (max-pool takes half); None for a rule that is not calibrated.
    """

    name: str
    soft: SoftExpression
    targets: tuple[Any, ...] = ()
    temperature: float | None = None
    verdict: Verdict = "softened"
    spread: float | None = 1.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.soft(*args, **kwargs)


def gate(
    *targets: Any, temperature: float | None = None, verdict: Verdict = "softened", spread: float | None = 1.0
) -> Callable[[SoftExpression], Rule]:
    """Make the decorated soft expression the rule of the operators `targets`, named after the function."""

    def decorate(function: SoftExpression) -> Rule:
        calibrated = None if temperature is None else spread
        return Rule(function.__name__, function, targets, temperature, verdict, calibrated)

    return decorate
