"""Files for Quantus and Captum: a torch module that answers from a file, and Quantus' metrics in an evaluation.

What a library would get silently wrong on a file is refused: metrics that draw the parameters of a module anew, for the
module has none; gradients, which a file does not give; pictures in another layout or type than the file takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fxpullback.contract.errors import EvaluateError
from fxpullback.export.evaluate.methods import Method, Predict
from fxpullback.export.evaluate.metrics import Column, Metric
from fxpullback.export.evaluate.trial import Trial, Values


class ServedModule(nn.Module):
    """Logits of a file as a torch module; no gradient passes through it.

    Args:
        predict: From pictures float32 [n, channels, height, width] to logits.
        shape: Channels, height and width of a picture.
    """

    def __init__(self, predict: Predict, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._predict, self._shape = predict, tuple(shape)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of pictures.

        Raises:
            EvaluateError: The pictures have another layout, or a gradient is asked for.
        """
        if tuple(x.shape[1:]) != self._shape:
            raise EvaluateError(
                f"pictures of shape {list(x.shape[1:])} came, and the file takes {list(self._shape)}. With Quantus "
                "pass channel_first=True."
            )
        if x.requires_grad and torch.is_grad_enabled():
            raise EvaluateError(
                "a gradient through a file was asked for, and there is none: its pullback is an output. Compile the "
                "model with --rules exact for one whose pullback is the gradient."
            )
        pixels = np.ascontiguousarray(x.detach().cpu().numpy(), dtype=np.float32)
        return torch.from_numpy(np.array(self._predict(pixels))).to(x.device)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: a library that asks for parameters wants to change them, and would find none and say nothing.

        Raises:
            EvaluateError: Always.
        """
        raise EvaluateError(
            "the parameters of a file are not those of a torch module, so a library cannot draw them anew. "
            "The metric randomisation does: evaluate(..., metrics=['randomisation'])."
        )


def quantus_metric(metric: Any, name: str, *, high: bool | None = None) -> Metric:
    """A metric of Quantus, for `evaluate(metrics=)`.

    Args:
        metric: An instance, such as `quantus.Sparseness()`.
        name: What to call it.
        high: Whether more is better; None for what Quantus says of it.

    Raises:
        EvaluateError: It says of itself neither.
    """
    if high is None:
        direction = str(getattr(getattr(metric, "score_direction", None), "value", "")).lower()
        if direction not in ("higher", "lower"):
            raise EvaluateError(f"{name}: Quantus does not say whether more is better. Pass high=True or high=False.")
        high = direction == "higher"
    kind = type(metric).__name__

    def measure(trial: Trial, method: Method) -> Values:
        return {name: _asked(metric, trial, method)}

    column = Column(name, high, f"{kind} of Quantus, of the map as one value for each pixel")
    return Metric(name, (column,), measure, f"{kind} of Quantus, with the options it was made with.")


def _asked(metric: Any, trial: Trial, method: Method) -> float:
    """Quantus' value for one picture."""

    def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
        x = np.ascontiguousarray(inputs, dtype=np.float32).reshape(-1, *trial.picture.shape)
        return method.flat(method.explain(x, np.asarray(targets, dtype=np.int64).reshape(-1)))[:, None]

    seed = int(trial.rng(type(metric).__name__).integers(2**31))
    kept = np.random.get_state()
    np.random.seed(seed)  # Quantus draws from numpy's global numbers
    try:
        values = metric(
            model=ServedModule(trial.predict, trial.picture.shape),
            x_batch=trial.picture[None],
            y_batch=np.array([trial.index]),
            a_batch=np.asarray(trial.flat(method)[None, None]),
            explain_func=explain,
            channel_first=True,
            softmax=False,
        )
    except EvaluateError:
        raise
    except Exception as error:
        raise EvaluateError(
            f"Quantus failed: {type(error).__name__}: {error}. The other metrics go on without it."
        ) from error
    finally:
        np.random.set_state(kept)
    return float(np.asarray(values, dtype=np.float64).ravel()[0])
