"""A compiled file as metrics see it: logits from its forward alone, maps from the whole."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fxpullback.contract.errors import EvaluateError, SessionError
from fxpullback.export.evaluate.methods import Indices, Method, of_pullbacks
from fxpullback.export.evaluate.patches import Array, batches
from fxpullback.export.runtime.onnx_file import OnnxFile
from fxpullback.export.runtime.providers import Provider
from fxpullback.export.runtime.session import Result, Session

OWN = {
    "pullback": "pullback",
    "input": "pullback * input",
    "contribution": "contribution",
    "focus": "focus",
}
BATCH = 16
SAME = 1e-2
"""How far the logits of a baseline may differ, as a share of the largest: half precision rounds."""


class Served:
    """A file that is evaluated: `predict`, and methods.

    Args:
        path: A file written by fxpullback.
        providers: Execution providers, as `Session` takes them.
        names: What its methods are called; None for a file's own names.
        batch: Pictures in one call.

    Raises:
        SessionError: The file cannot be loaded.
        EvaluateError: It takes no pictures, other inputs besides, or a contrast as target.
    """

    def __init__(
        self,
        path: Path,
        providers: list[Provider] | None = None,
        names: dict[str, str] | None = None,
        batch: int = BATCH,
    ) -> None:
        self.path, self.batch, self.names = path, batch, names or OWN
        self.providers = providers
        self.session = Session(path, providers=providers)
        _check(self.session)
        self._forward: Callable[[Array], Array] | None = None
        self.any_class = self.session.target != "top1"

    def on(self, path: Path) -> Served:
        """Another file, run and called like this one."""
        return Served(path, self.providers, self.names, self.batch)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture; a free size as the preprocessing says."""
        channels, height, width = self.session.input_shape[1:]
        if not isinstance(height, int) or not isinstance(width, int):
            size = (self.session.preprocessing or {}).get("size") or (224, 224)
            height, width = (int(side) for side in size)
        return int(channels), height, width

    def predict(self, x: Array) -> Array:
        """Logits float32 [n, classes], through the forward alone where the file can be cut."""
        if self._forward is None:
            self._forward = forward_of(self.path, self.providers) or self._whole
        parts = [self._forward(np.ascontiguousarray(x[part])) for part in batches(len(x), self.batch)]
        return np.concatenate(parts)

    def ask(self, x: Array, classes: Indices) -> tuple[Array, Array | None]:
        """Pullbacks, and contributions where the file has them."""
        results = [self._call(x[part], classes[part]) for part in batches(len(x), self.batch)]
        held = [result.contribution for result in results if result.contribution is not None]
        pullbacks = np.concatenate([result.pullback for result in results])
        return pullbacks, np.concatenate(held) if self.holds_contribution else None

    @property
    def holds_contribution(self) -> bool:
        """Whether the file says what each place of a grid carries of the logit; tokens in a row are no places."""
        held = self.session.contributions
        return held is not None and len(held.grid) == 2

    def methods(self) -> list[Method]:
        """What the file explains with."""
        found = of_pullbacks(self.ask, self.names, contribution=self.holds_contribution)
        return [replace(method, any_class=self.any_class) for method in found]

    def _call(self, x: Array, classes: Indices) -> Result:
        match self.session.target:
            case "top1":
                result = self.session(x)
                if (result.logits.argmax(1) != classes).any():
                    raise EvaluateError(
                        f"{self.path}: it explains the top-1 class alone, and another was asked for. "
                        "Compile the model with --target index."
                    )
                return result
            case "cotangent":
                return self.session(x, np.eye(self.session.class_count, dtype=np.float32)[classes])
        return self.session(x, classes)

    def _whole(self, x: Array) -> Array:
        """Logits of the whole file, for one that cannot be cut."""
        match self.session.target:
            case "top1":
                return self.session(x).logits
            case "cotangent":
                return self.session(x, np.zeros((len(x), self.session.class_count), np.float32)).logits
        return self.session(x, np.zeros(len(x), np.int64)).logits


def check_same(served: Served, predict: Callable[[Array], Array], what: str) -> None:
    """Raise an EvaluateError unless `predict` gives the logits of a file: baselines are of the same network."""
    x = np.random.default_rng(0).uniform(-1, 1, (2, *served.shape)).astype(np.float32)
    own, other = served.predict(x), predict(x)
    if own.shape != other.shape or np.abs(own - other).max() > SAME * max(float(np.abs(own).max()), 1e-3):
        raise EvaluateError(
            f"{what}: its logits are others than those of {served.path}, so it holds another network, or other "
            "weights. Use the same model with the same weights."
        )


def _check(session: Session) -> None:
    """Raise an EvaluateError for a file whose logits or maps no metric can use."""
    shape = session.input_shape[1:]
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise EvaluateError(
            f"{session.path}: it takes {list(session.input_shape)}, which is no picture, and the metrics here take "
            "pictures apart. Pass a file of a picture model."
        )
    if session.extras:
        raise EvaluateError(
            f"{session.path}: besides the picture it takes {', '.join(session.extras)}, which a folder of pictures "
            "does not hold. Wrap the model so that it takes a picture alone, and compile that."
        )
    if session.target == "contrast":
        raise EvaluateError(
            f"{session.path}: its target is a contrast of two classes, and every metric asks for one. "
            "Compile the model with --target index."
        )


def forward_of(path: Path, providers: list[Provider] | None) -> Callable[[Array], Array] | None:
    """The logits of a file and nothing else: the part of its graph that leads to them. None for no ONNX file."""
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    if path.suffix == ".pt2":
        return None
    model = ir.load(path)
    graph = model.graph
    for output in [value for value in graph.outputs if value.name != "logits"]:
        graph.outputs.remove(output)
    RemoveUnusedNodesPass()(model)
    for value in [value for value in graph.inputs if value.name != "input" and not value.uses()]:
        graph.inputs.remove(value)
    if len(graph.inputs) != 1:
        return None
    with tempfile.TemporaryDirectory(prefix="fxpullback-") as folder:
        cut = Path(folder) / "forward.onnx"
        try:
            ir.save(model, cut, external_data="forward.onnx.data")
            file = OnnxFile(cut, providers)
        except (OSError, SessionError):
            return None  # no room for a copy: the whole file gives the same logits
    return lambda x: np.asarray(file.run({"input": x})[0])
