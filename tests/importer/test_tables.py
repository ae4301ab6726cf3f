"""Operators of ai.onnx.ml: what converters of scikit-learn write around a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError
from fxpullback.export import to_onnx
from fxpullback.importer.load import load
from tests.helpers import assert_near
from tests.importer.graphs import drawn, model, saved

X, TARGET = torch.from_numpy(drawn(3, 4, seed=7)).double(), torch.tensor([0, 2, 1])
W, B = drawn(3, 4), drawn(3, seed=1)
SCORES: dict[str, Any] = {"coefficients": W.reshape(-1).tolist(), "intercepts": B.tolist()}


def _ml(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, name=outputs[-1], domain="ai.onnx.ml", **attributes)


def _linear(x: Tensor) -> Tensor:
    return x @ torch.from_numpy(W).double().T + torch.from_numpy(B).double()


def _head(name: str) -> onnx.NodeProto:
    return _ml("LinearRegressor", [name], ["logits"], targets=3, **SCORES)


def _classifier(**attributes: Any) -> list[onnx.NodeProto]:
    return [_ml("LinearClassifier", ["x"], ["label", "logits"], **SCORES, **attributes)]


OFFSET, SCALE = [0.5, -1.0, 0.25, 2.0], [2.0, 0.5, 1.5, -1.0]
CASES: dict[str, tuple[list[onnx.NodeProto], Callable[[Tensor], Tensor]]] = {
    "scaler": (
        [_ml("Scaler", ["x"], ["s"], offset=OFFSET, scale=SCALE), _head("s")],
        lambda x: _linear((x - x.new_tensor(OFFSET)) * x.new_tensor(SCALE)),
    ),
    "scaler of one number": (
        [_ml("Scaler", ["x"], ["s"], offset=[0.5], scale=[2.0]), _head("s")],
        lambda x: _linear((x - 0.5) * 2),
    ),
    "row of length one, L1": (
        [_ml("Normalizer", ["x"], ["s"], norm="L1"), _head("s")],
        lambda x: _linear(x / x.abs().sum(-1, keepdim=True)),
    ),
    "row of length one, L2": (
        [_ml("Normalizer", ["x"], ["s"], norm="L2"), _head("s")],
        lambda x: _linear(x / (x * x).sum(-1, keepdim=True).sqrt()),
    ),
    "classifier": (_classifier(classlabels_ints=[3, 4, 5]), _linear),
    "classifier, softmax": (
        _classifier(classlabels_ints=[3, 4, 5], post_transform="SOFTMAX"),
        lambda x: torch.softmax(_linear(x), -1),
    ),
    "classifier, logistic": (
        _classifier(classlabels_strings=["a", "b", "c"], post_transform="LOGISTIC"),
        lambda x: torch.sigmoid(_linear(x)),
    ),
    "columns": (
        [_ml("ArrayFeatureExtractor", ["x", "order"], ["s"]), _head("s")],
        lambda x: _linear(x[:, [2, 0, 3, 3]]),
    ),
    "side by side": (
        [
            _ml("ArrayFeatureExtractor", ["x", "half"], ["h"]),
            _ml("FeatureVectorizer", ["h", "h"], ["s"], inputdimensions=[2, 2]),
            _head("s"),
        ],
        lambda x: _linear(torch.cat([x[:, [1, 2]]] * 2, 1)),
    ),
    "missing": (
        [_ml("Imputer", ["x"], ["s"], imputed_value_floats=OFFSET, replaced_value_float=0.0), _head("s")],
        lambda x: _linear(torch.where(x == 0, x.new_tensor(OFFSET), x)),
    ),
}


def _file(nodes: list[onnx.NodeProto], path: Path) -> Path:
    weights = {"order": np.array([2, 0, 3, 3]), "half": np.array([1, 2])}
    used = {name: value for name, value in weights.items() if any(name in n.input for n in nodes)}
    return saved(model(nodes, ["b", 4], weights=used, domains=["ai.onnx.ml"]), path)


@pytest.mark.parametrize("case", [*CASES])
def test_the_pullback_is_autograds(case: str, tmp_path: Path) -> None:
    nodes, original = CASES[case]
    path = _file(nodes, tmp_path / "m.onnx")
    x = torch.where(X.abs() < 0.3, 0.0, X) if case == "missing" else X
    pb = fxpullback.compile(load(path).double(), x, rules=EXACT)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(original(leaf)[range(3), TARGET].sum(), leaf)
    assert_near(pb(x, TARGET)[1], gradient, 1e-9)
    assert to_onnx(fxpullback.compile(path, x.float()), tmp_path / "explained.onnx")


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([_ml("Normalizer", ["x"], ["logits"], norm="MAX")], "its norm MAX is not supported; L1 and L2 are"),
        (_classifier(classlabels_ints=[0, 1]), "it has 3 rows of weights for 2 classes"),
        (_classifier(classlabels_ints=[0, 1, 2], post_transform="PROBIT"), "its post_transform PROBIT"),
        (
            [_ml("ZipMap", ["x"], ["logits"], classlabels_int64s=[0, 1, 2, 3])],
            "list of dictionaries, which is no tensor",
        ),
    ],
)
def test_what_is_not_supported_says_what_to_do(nodes: list[onnx.NodeProto], said: str, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=said):
        fxpullback.compile(_file(nodes, tmp_path / "m.onnx"), X.float())
