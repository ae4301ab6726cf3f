"""The certificate: what was checked, on which inputs, how far it was off and how far it may be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what was compared.
        measured: the error found; for a check `at_least`, the value found.
        bound: largest error allowed, or smallest value for a check `at_least`.
        passed: whether it held.
        detail: the first node that differs where it failed, or what else there is to say.
        at_most: whether the bound is the largest error allowed, or the smallest value.
    """

    name: str
    measured: float
    bound: float
    passed: bool
    detail: str = ""
    at_most: bool = True


def at_most(name: str, measured: float, bound: float, detail: str = "") -> Check:
    """A check that an error is no larger than a bound; NaN never passes."""
    return Check(name, measured, bound, math.isfinite(measured) and measured <= bound, detail)


def at_least(name: str, measured: float, bound: float, detail: str = "") -> Check:
    """A check that a value is no smaller than a bound; NaN never passes."""
    return Check(name, measured, bound, math.isfinite(measured) and measured >= bound, detail, at_most=False)


@dataclass(frozen=True)
class Certificate:
    """All checks of one verification."""

    checks: tuple[Check, ...]
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether there were checks and every one held."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        checks = [{**asdict(c), "measured": c.measured if math.isfinite(c.measured) else None} for c in self.checks]
        return {"passed": self.passed, "checks": checks, "environment": dict(self.environment)}

    def to_json(self) -> str:
        """The certificate as JSON text."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """Read back what `to_dict` wrote."""
        checks = (
            Check(**{**c, "measured": math.nan if c["measured"] is None else c["measured"]}) for c in data["checks"]
        )
        return cls(tuple(checks), data["environment"])

    def with_checks(self, checks: tuple[Check, ...], **environment: Any) -> Certificate:
        """This certificate with further checks."""
        return Certificate((*self.checks, *checks), {**self.environment, **environment})

    def __str__(self) -> str:
        lines = []
        for check in self.checks:
            mark = "pass" if check.passed else "FAIL"
            sign = "<=" if check.at_most else ">="
            lines.append(f"{mark}  {check.name.ljust(58)} {check.measured:9.2e} {sign} {check.bound:.3g}")
            if check.detail:
                lines.append(f"      {check.detail}")
        lines.append("certificate passed" if self.passed else "certificate FAILED")
        return "\n".join(lines)
