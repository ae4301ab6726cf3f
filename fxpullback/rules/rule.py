"""What a gate rule is: one torch function with its operator, temperature and verdict."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fxpullback.contract.errors import RuleError

Verdict = Literal["softened", "frozen", "linear", "exact", "constant", "blocking"]
SoftExpression = Callable[..., Tensor]


@dataclass(frozen=True)
class Rule:
    """A gate rule.

    Attributes:
        name: name of its function.
        soft: the soft expression, a torch function of the operator's arguments (and `temperature=`, `noise=`).
        targets: the operators it applies to; empty for a rule that a pattern applies.
        temperature: default temperature, or None for a rule without one.
        verdict: what the ledger says of an operator under this rule.
        spread: factor on the spread of `calibrate` (max-pool takes half); None for a rule that is not calibrated.
        known_as: the public name, where it is another rule's: the same gate written otherwise. None: its own name.
    """

    name: str
    soft: SoftExpression
    targets: tuple[Any, ...] = ()
    temperature: float | None = None
    verdict: Verdict = "softened"
    spread: float | None = 1.0
    known_as: str | None = None

    @property
    def public(self) -> str:
        """What `with_temperature`, `keep_exact` and the ledger call it: `attention`, fused or written out."""
        return self.known_as or self.name

    @property
    def takes_noise(self) -> bool:
        """Whether its soft expression takes an expectation, whose noise the rule set names: a keyword `noise`."""
        return "noise" in inspect.signature(self.soft).parameters

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.soft(*args, **kwargs)


def gate(
    *targets: Any,
    temperature: float | None = None,
    verdict: Verdict = "softened",
    spread: float | None = 1.0,
    known_as: str | None = None,
) -> Callable[[SoftExpression], Rule]:
    """Make the decorated soft expression the rule of the operators `targets`, named after the function."""

    def decorate(function: SoftExpression) -> Rule:
        calibrated = None if temperature is None else spread
        return Rule(function.__name__, function, targets, temperature, verdict, calibrated, known_as)

    return decorate


def check_operators(owner: str, targets: tuple[Any, ...]) -> None:
    """Refuse what no node of a captured graph calls: a name, or an operator without its overload.

    Raises:
        RuleError: one of `targets` is no operator.
    """
    for target in targets:
        if isinstance(target, torch._ops.OpOverloadPacket):
            overloads = ", ".join(target.overloads())
            raise RuleError(f"{owner}: {target} stands for several operators; name one of its overloads: {overloads}.")
        if not callable(target):
            raise RuleError(f"{owner}: {target!r} is no operator; name one, such as torch.ops.aten.mul.Tensor.")
