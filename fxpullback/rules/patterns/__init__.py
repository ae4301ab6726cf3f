"""Patterns: gates that are written as several operators, each with what finds it and the rule it gets.

`PATTERNS` is in the order in which they are asked: the first that finds its gate at an operator has it.
"""

from __future__ import annotations

from fxpullback.rules.patterns.attention import ATTENTION
from fxpullback.rules.patterns.flow import Flow, Walk
from fxpullback.rules.patterns.gated import GATED_PRODUCT, SELF_GATED, SILU
from fxpullback.rules.patterns.normalization import CENTRING, NORMALIZATION
from fxpullback.rules.patterns.pattern import Find, Match, Pattern, WhyNot
from fxpullback.rules.patterns.thresholds import RELU, SHRINK

PATTERNS: tuple[Pattern, ...] = (ATTENTION, RELU, SHRINK, SILU, SELF_GATED, GATED_PRODUCT, NORMALIZATION, CENTRING)

__all__ = ["ATTENTION", "PATTERNS", "Find", "Flow", "Match", "Pattern", "Walk", "WhyNot"]
