"""Load a compiled file and run it on checked inputs.

An ONNX file needs numpy and ONNX Runtime; no torch is used on the way from a picture to its explanation. A package of
AOTInductor (.pt2) is run by torch, which is imported when one is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fxpullback.contract import metadata as md
from fxpullback.contract.arguments import Arguments, Array
from fxpullback.contract.contribution import CONTRIBUTION
from fxpullback.contract.errors import SessionError
from fxpullback.contract.names import OF_INPUT
from fxpullback.contract.parts import COLUMNS
from fxpullback.export.runtime.onnx_file import OnnxFile, damaged
from fxpullback.export.runtime.package import Package, is_package
from fxpullback.export.runtime.providers import Provider, ProviderWarning

__all__ = ["Array", "ProviderWarning", "Result", "Session"]


@dataclass(frozen=True, slots=True)
class Result:
    """What one call returns.

    Attributes:
        logits: float32 [batch, classes], the model's own output.
        pullback: float32, the shape of the input; of ids [batch, tokens, dim], at what they are looked up as. For
            ascent: the displacement, counterfactual minus input.
        counterfactual: float32, the shape of the input; ascent only, else None.
        counterfactual_logits: float32 [batch, classes] of the counterfactual; ascent only, else None.
        contribution: float32 [batch, height, width], or [batch, tokens]: what each place carries of the logit. None
            where the file was compiled without taps.
        contributions: each tap's own map by its name; empty unless the file was compiled with `each_tap`.
        parts: float32 [batch, 3]: what of the logit the input, the biases and the gates add. They sum to it, or to what
            the target makes of the logits. None where the file was compiled without `bias`.
        bias_contribution: float32 [batch, height, width], or [batch, tokens]: what biases add where they act, each at
            its own layer. None unless the file was compiled with `bias="pushed"`.
        pullbacks: where several inputs are explained, the pullback of each by its name; `pullback` is the first of
            them. Empty where one is explained.
        counterfactuals: The same of counterfactuals.
    """

    logits: Array
    pullback: Array
    counterfactual: Array | None = None
    counterfactual_logits: Array | None = None
    contribution: Array | None = None
    contributions: Mapping[str, Array] = field(default_factory=dict)
    parts: Array | None = None
    bias_contribution: Array | None = None
    pullbacks: Mapping[str, Array] = field(default_factory=dict)
    counterfactuals: Mapping[str, Array] = field(default_factory=dict)

    @property
    def bias_share(self) -> Array | None:
        """What the constants of the network add, float32 [batch]."""
        return None if self.parts is None else self.parts[:, COLUMNS.index("biases")]

    @classmethod
    def of(cls, outputs: Mapping[str, Array]) -> Result:
        """Of the outputs of a file by name."""
        plain = {name: array for name, array in outputs.items() if "." not in name}
        own = {kind: _own(outputs, kind) for kind in (CONTRIBUTION, *OF_INPUT)}
        for kind in OF_INPUT:
            plain |= {kind: next(iter(own[kind].values()))} if own[kind] else {}
        return cls(
            **plain,
            contributions=own[CONTRIBUTION],
            pullbacks=own["pullback"],
            counterfactuals=own["counterfactual"],
        )

    def __getitem__(self, name: str) -> Array:
        """One output by its name in the file."""
        kind, dot, part = name.partition(".")
        found: Array | None = getattr(self, f"{kind}s", {}).get(part) if dot else getattr(self, name, None)
        if found is None:
            raise KeyError(name)
        return found


def _own(outputs: Mapping[str, Array], kind: str) -> dict[str, Array]:
    """The outputs of a kind that have a name of their own behind a dot, by that name."""
    return {name.partition(".")[2]: array for name, array in outputs.items() if name.startswith(f"{kind}.")}


class Session:
    """A compiled file, loaded: an ONNX file in ONNX Runtime, or a package that `to_aoti` wrote in torch.

    A session may be shared by threads; what it returns belongs to the caller.

    Args:
        path: The file; external data of an ONNX file is looked for beside it. Loading a package runs the machine code
            in it. It runs on the device it was compiled for, and the options below are not for it.
        providers: Execution providers in order of preference, as ONNX Runtime takes them. None picks the best that
            works here: CUDA where there is a GPU that ONNX Runtime can use, else the CPU.
        io_binding: Bind inputs and outputs to buffers that are kept for each shape; calls of one shape then wait for
            each other. None does so on a GPU and not on the CPU.
        cuda_graph: Record the work of a call once per shape, as a CUDA graph, and replay it from then on; for small
            batches, where launching kernels takes longer than running them. True for every batch size that comes, each
            holding memory as long as the session lives; or the batch sizes, such as `(1, 8)`: others run without. All
            calls go through one thread then.

    Attributes:
        metadata: Everything the file says about itself.
        program: `soft`, `double` or `ascent`, with its options where the file has them.
        rules: The rule set the file was compiled under.
        target: `index`, `top1`, `cotangent` or `contrast`.
        classes: Class names in the order of the logits, or None.
        preprocessing: How a picture becomes an input, or None.
        ledger: What happened to every operator of the model.
        certificate: What was verified at export, or None.
        contributions: What the contribution maps are of, or None.
        parts: What the parts of the logits are of, or None.
        text: How a text becomes an input, or None.
        outputs: Every output of the file, in order.
        inputs: Every input of the file by name, with its type and shape: `input`, or the ids of a text; what is passed
            through; `target`.
        extras: The inputs that are passed through and not explained, by name; empty for most files.
        input_shape: Shape of `input`; a dimension that is free is its name, such as `"batch"`.
        sizes: The axes of `input` beside the batch whose size is free, and what sizes they allow; empty for most files.
        class_count: Number of logits.
        providers: Execution providers actually used, in order of preference; for a package its device.
        runtime: What runs the file: `ONNX Runtime` or `AOTInductor`.

    Raises:
        SessionError: The file is absent, truncated, not written by fxpullback, or lacks its external data; or CUDA
            graphs were asked for and cannot be recorded here.

    Warns:
        ProviderWarning: A GPU was asked for and is not used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        providers: Sequence[Provider] | None = None,
        io_binding: bool | None = None,
        cuda_graph: bool | Collection[int] = False,
    ) -> None:
        self.path = Path(path)
        _check_file(self.path)
        kind = Package if is_package(self.path) else OnnxFile
        file: Package | OnnxFile = kind(self.path, providers, io_binding, cuda_graph)
        self.providers, self.runtime = file.providers, file.runtime
        self.metadata = _metadata(self.path, file.metadata)
        self.program = self.metadata.program
        self.rules = self.metadata.rules
        self.target = self.metadata.target
        self.classes = self.metadata.classes
        self.preprocessing = self.metadata.preprocessing
        self.ledger: dict[str, Any] = self.metadata.ledger
        self.certificate = self.metadata.certificate
        self.sizes = self.metadata.sizes
        self.contributions = self.metadata.contributions
        self.parts = self.metadata.parts
        self.text = self.metadata.text
        self.inputs = file.inputs
        self.outputs = tuple(file.outputs)
        self.class_count = _class_count(self.path, file, self.metadata)
        explained, extras = self.metadata.explained, self.metadata.extras
        self.input_shape = self.inputs[explained].shape
        arguments = Arguments(
            self.inputs,
            extras,
            self.target,
            self.class_count,
            self.sizes,
            explained,
            self.metadata.vocabulary,
            self.metadata.ends,
            self.metadata.also,
        )
        self.extras = arguments.extras
        self._feed, self._run = arguments.feed, file.run

    def __call__(
        self, x: npt.ArrayLike, /, target: npt.ArrayLike | None = None, *extras: npt.ArrayLike, **named: npt.ArrayLike
    ) -> Result:
        """Logits and pullback of a batch.

        Args:
            x: Floating point, the shape of `input_shape`: for a picture model [batch, 3, H, W], RGB scaled to [-1, 1].
                Other floating types are converted to float32. For a model of text its ids, integers [batch, tokens].
            target: What to explain, by the file's target. `index`: one class per sample, integers [batch]. `contrast`:
                two classes per sample, integers [batch, 2], the first minus the second. `cotangent`: floating point
                [batch, classes]. `top1`: nothing.
            *extras: What the file takes besides, in the order of `session.extras`.
            **named: The same by name, as in `session(x, target, mask=mask)`.

        Returns:
            The outputs of the file, as numpy arrays.

        Raises:
            InputError: An input has the wrong rank, size or type, holds NaN or infinity, names no class, or an extra is
                missing or unknown.
            SessionError: The runtime failed while running.
        """
        feed = self._feed(x, target, extras, named)
        try:
            outputs = self._run(feed)
        except Exception as error:
            shape = feed[self.metadata.explained].shape
            raise SessionError(f"{self.path}: {self.runtime} failed on an input of shape {shape}: {error}") from error
        return Result.of(dict(zip(self.outputs, outputs, strict=True)))

    def __repr__(self) -> str:
        program = self.metadata.program_name
        return f"Session({str(self.path)!r}, program={program!r}, target={self.target!r}, providers={self.providers})"


def _check_file(path: Path) -> None:
    """Raise a SessionError unless `path` is a file that can be read and is not empty."""
    if not path.exists():
        raise SessionError(f"{path}: there is no such file. Write one with: fxpullback compile MODEL -o {path}")
    if path.is_dir():
        raise SessionError(f"{path}: this is a folder, and the ONNX file itself is wanted.")
    if path.stat().st_size == 0:
        raise SessionError(f"{path}: the file is empty. Compile it again, or copy it again.")
    if not os.access(path, os.R_OK):
        raise SessionError(f"{path}: the file cannot be read; this user lacks the permission.")


def _metadata(path: Path, raw: Mapping[str, str]) -> md.Metadata:
    """The metadata of a loaded file, or a SessionError for a file that fxpullback did not write."""
    if not any(key.startswith(md.PREFIX) for key in raw):
        raise SessionError(
            f"{path}: this ONNX file was not written by fxpullback (no metadata {md.PREFIX}*), or it was cut short. "
            "Compile the PyTorch model it came from: fxpullback compile MODEL -o FILE"
        )
    try:
        return md.parse(raw)
    except ValueError as error:
        raise damaged(path, error) from error


def _class_count(path: Path, file: Package | OnnxFile, metadata: md.Metadata) -> int:
    """The number of classes, once the names are found to be those of the contract."""
    inputs, outputs = list(file.inputs), list(file.outputs)
    wanted = [metadata.explained, *metadata.extras, *([] if metadata.target == "top1" else ["target"])]
    returned = ["logits", *metadata.outputs_of("pullback")]
    if metadata.program_name == "ascent":
        returned += [*metadata.outputs_of("counterfactual"), "counterfactual_logits"]
    if metadata.contributions is not None:
        returned += metadata.contributions.outputs
    if metadata.parts is not None:
        returned += metadata.parts.outputs
    if sorted(inputs) != sorted(wanted) or outputs != returned:
        raise SessionError(
            f"{path}: the file takes {', '.join(inputs)} and returns {', '.join(outputs)}, where its metadata promises "
            f"{', '.join(wanted)} and {', '.join(returned)}. It was changed after export; compile it again."
        )
    classes = file.outputs["logits"][-1]
    if not isinstance(classes, int):
        raise SessionError(
            f"{path}: the number of classes is not fixed in the file (logits are {list(file.outputs['logits'])})."
        )
    return classes
