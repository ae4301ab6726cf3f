"""What a model came in, where that can be run by itself: the certificate starts from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from fxpullback.contract.certificate import Check


class Original(Protocol):
    """A model as it came, beside what was compiled of it."""

    @property
    def origin(self) -> Mapping[str, Any]:
        """What it says of itself: `file`, `sha256`, `producer`, `opset` by domain."""
        ...

    def checks(self, pb: Any, seed: int) -> tuple[Check, ...]:
        """What was compiled against the original, on fresh inputs.

        Args:
            pb: what was compiled of it.
            seed: seed of the fresh inputs.
        """
        ...

    def judge(self, pb: Any) -> None:
        """Refuse what does not compute what the original does.

        Raises:
            CaptureError: it does not.
        """
        ...
