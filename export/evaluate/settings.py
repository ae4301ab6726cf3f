"""What an evaluation may be told, and how its random numbers are drawn."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from zlib import crc32

import numpy as np
from numpy.random import Generator

from fxpullback.contract.errors import EvaluateError

FORMAT = 1
"""Raised whenever a metric changes what it computes: rows of another format are not taken up again."""


@dataclass(frozen=True)
class Settings:
    """How everything is measured; rows measured with other settings are never mixed in.

    Attributes:
        seed: Where every random number comes from.
        grid: Patches in a row and in a column, for occlusion, insertion, deletion and random sets.
        steps: Steps of insertion and deletion, and groups of pixels for faithfulness estimate and monotonicity.
        runs: Random changes for infidelity and random sets for faithfulness correlation.
        samples: Copies of a picture for max-sensitivity, and for SmoothGrad, integrated gradients and Grad-SHAP.
        radius: How far max-sensitivity moves a pixel, of pixels in [-1, 1].
    """

    seed: int = 0
    grid: int = 14
    steps: int = 28
    runs: int = 100
    samples: int = 16
    radius: float = 0.02

    def __post_init__(self) -> None:
        """Raise an EvaluateError for a number that makes no sense."""
        least = {"seed": 0, "grid": 4, "steps": 4, "runs": 4, "samples": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise EvaluateError(f"{name} {getattr(self, name)}: {bound} or more is wanted.")
        if not 0 < self.radius <= 2:
            raise EvaluateError(f"radius {self.radius}: a share of the range of pixels, [-1, 1], is wanted: 0.02, say.")

    def rng(self, *what: str) -> Generator:
        """Random numbers that hang on the seed and on what they are for, and on nothing that ran before."""
        return np.random.default_rng([self.seed, *(crc32(word.encode()) for word in what)])

    @property
    def digest(self) -> str:
        """Tells settings apart."""
        return short(json.dumps([FORMAT, asdict(self)]))


def short(text: str) -> str:
    """Sixteen characters that tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
