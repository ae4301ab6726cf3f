"""Gate rules and the rule sets made of them.

`SEMANTIC` is the default, which `compile` calibrates where it is given no rules; by name it has the temperatures of the
paper. `REFERENCE` is what the method authors' code does, to the digit; `EXACT` has no rules and gives the plain
gradient.
"""

from __future__ import annotations

from fxpullback.graph.fake_quantized import FAKE_QUANTIZE
from fxpullback.rules import activations, attention, normalization, pooling, quantisation
from fxpullback.rules.exact import KEPT_EXACT
from fxpullback.rules.patterns import ATTENTION, PATTERNS, Flow, Match, Pattern, WhyNot
from fxpullback.rules.rule import Rule, Verdict, gate
from fxpullback.rules.ruleset import RuleSet

CLIPPED = {FAKE_QUANTIZE: quantisation.CLIPPED}

SEMANTIC = RuleSet(
    "semantic",
    rules=(
        *activations.ACTIVATIONS,
        *pooling.POOLING,
        *normalization.NORMALIZATIONS,
        *attention.ATTENTION,
        *quantisation.QUANTISATION,
    ),
    patterns=PATTERNS,
    exact=KEPT_EXACT,
)

REFERENCE = RuleSet(
    "reference",
    rules=(
        activations.relu,
        activations.silu,
        activations.gelu,
        pooling.max_pool_zero_padding,
        normalization.layer_norm,
        *attention.ATTENTION,
    ),
    patterns=(ATTENTION,),
    exact=CLIPPED,
    otherwise="the authors' code has no rule for it",
)

EXACT = RuleSet("exact", exact=CLIPPED, otherwise="the rule set has no rules")

__all__ = [
    "EXACT",
    "REFERENCE",
    "SEMANTIC",
    "Flow",
    "Match",
    "Pattern",
    "Rule",
    "RuleSet",
    "Verdict",
    "WhyNot",
    "gate",
]
