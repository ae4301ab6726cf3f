"""What converters of scikit-learn write around a network: operators of ai.onnx.ml that are linear, or scale a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.site import Node, tensor

_POST: dict[str, Callable[[Tensor], Tensor]] = {
    "NONE": lambda scores: scores,
    "SOFTMAX": lambda scores: torch.softmax(scores, -1),
    "LOGISTIC": torch.sigmoid,
}


def _floats(x: Any) -> Tensor:
    """These operators take any numbers and give floats of 32 bits."""
    made: Tensor = tensor(x)
    return made if made.is_floating_point() else made.float()


def scaler(node: Node, x: Any) -> Any:
    """(x - offset) * scale, each one number or one for each column."""
    x = _floats(x)
    return (x - x.new_tensor(node.get("offset", [0.0]))) * x.new_tensor(node.get("scale", [1.0]))


def normalizer(node: Node, x: Any) -> Any:
    """Rows divided by a norm of theirs; rows of zeros stay."""
    x, kind = _floats(x), node.text("norm", "MAX")
    if kind not in ("L1", "L2"):
        raise CaptureError(f"its norm {kind} is not supported; L1 and L2 are")
    size = torch.linalg.vector_norm(x, 1 if kind == "L1" else 2, -1, keepdim=True)
    return x / torch.where(size == 0, 1.0, size)


def _scores(node: Node, x: Any, rows: int) -> Tensor:
    x = _floats(x)
    weight = x.new_tensor(node.get("coefficients")).reshape(rows, -1)
    bias = node.get("intercepts")
    kind = node.text("post_transform", "NONE")
    if kind not in _POST:
        raise CaptureError(f"its post_transform {kind} is not supported; {', '.join(_POST)} are")
    return _POST[kind](F.linear(x, weight, x.new_tensor(bias) if bias else None))


def linear_regressor(node: Node, x: Any) -> Any:
    """Weighted sums of columns."""
    return _scores(node, x, int(node.get("targets", 1)))


def linear_classifier(node: Node, x: Any) -> Any:
    """Classes, None where they are texts, and a score for each."""
    labels = node.get("classlabels_ints") or node.get("classlabels_strings") or []
    width = _floats(x).shape[-1]
    rows = len(node.get("coefficients")) // int(width)
    if rows != len(labels):
        raise CaptureError(f"it has {rows} rows of weights for {len(labels)} classes; write one for each")
    scores = _scores(node, x, rows)
    names = node.get("classlabels_ints")
    return None if names is None else torch.tensor(names)[scores.argmax(-1)], scores


def extractor(node: Node, x: Any, places: Any) -> Any:
    """Columns, by their numbers."""
    index = node.numbers(1, [x, places])
    assert index is not None
    made = tensor(x)
    found = made.index_select(-1, torch.from_numpy(np.array(index, np.int64)))
    return found if made.ndim > 1 else found[None]


def binarizer(node: Node, x: Any) -> Any:
    """1 above a threshold, 0 elsewhere."""
    x = _floats(x)
    return (x > float(node.get("threshold", 0.0))).to(x.dtype)


def vectorizer(node: Node, *values: Any) -> Any:
    """Columns side by side."""
    return torch.cat([_floats(value) for value in values], -1)


def imputer(node: Node, x: Any) -> Any:
    """Numbers in place of those that are missing."""
    x = _floats(x)
    missing = float(node.get("replaced_value_float", 0.0))
    gone = torch.isnan(x) if np.isnan(missing) else x == missing
    return torch.where(gone, x.new_tensor(node.get("imputed_value_floats", [0.0])), x)


def zip_map(node: Node, x: Any) -> Any:
    """Refused: a list of dictionaries is no tensor."""
    raise CaptureError(
        "it makes a list of dictionaries, which is no tensor; name the value in front of it, output=NAME, or convert "
        "with options={id(model): {'zipmap': False}}"
    )


_BY_NAME: dict[str, Callable[..., Any]] = {
    "Scaler": scaler,
    "Normalizer": normalizer,
    "LinearRegressor": linear_regressor,
    "LinearClassifier": linear_classifier,
    "ArrayFeatureExtractor": extractor,
    "Binarizer": binarizer,
    "FeatureVectorizer": vectorizer,
    "Imputer": imputer,
    "ZipMap": zip_map,
}
OPERATORS: dict[str, Callable[..., Any]] = {f"ai.onnx.ml.{name}": operator for name, operator in _BY_NAME.items()}
