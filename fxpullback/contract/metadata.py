"""The metadata that a file carries under `fxpullback.*`: keys, and reading them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fxpullback.contract.beside import Beside
from fxpullback.contract.contribution import Contributions
from fxpullback.contract.ends import Ends
from fxpullback.contract.names import INPUT, own_output
from fxpullback.contract.parts import Parts
from fxpullback.contract.sizes import FreeAxis
from fxpullback.contract.text import Text

PREFIX = "fxpullback."
VERSION = PREFIX + "version"
RULES = PREFIX + "rules"
PROGRAM = PREFIX + "program"
TARGET = PREFIX + "target"
LEDGER = PREFIX + "ledger"
CERTIFICATE = PREFIX + "certificate"
PREPROCESSING = PREFIX + "preprocessing"
CLASSES = PREFIX + "classes"
INPUTS = PREFIX + "inputs"
SIZES = PREFIX + "sizes"
REWRITES = PREFIX + "rewrites"
CONTRIBUTIONS = PREFIX + "contributions"
PARTS = PREFIX + "parts"
PRECISION = PREFIX + "precision"
ORACLE = PREFIX + "injected_form"
WEIGHTS_SHA256 = PREFIX + "weights_sha256"
TEXT = PREFIX + "text"
ORIGIN = PREFIX + "origin"
BESIDE = PREFIX + "beside"

REQUIRED = (VERSION, RULES, PROGRAM, TARGET, LEDGER, INPUTS, REWRITES)
TARGETS = ("index", "top1", "cotangent", "contrast")


@dataclass(frozen=True)
class Metadata:
    """What a file says about itself.

    Attributes:
        version: Version of fxpullback that wrote the file.
        rules: Rule set: its name, temperatures and exceptions.
        program: Program: its name and its options.
        target: `index`, `top1`, `cotangent` or `contrast`.
        ledger: One row per operator of the model, parsed.
        certificate: Certificate of the export, parsed; None when the file was written without one.
        preprocessing: How a picture or a sound becomes an input, parsed; None for a model that takes something else.
        classes: Class names in the order of the logits, or None.
        weights_sha256: Digest of the weights, or None.
        explained: Name of the input that is explained.
        vocabulary: Where that input holds ids: how many there are. None where it is explained itself.
        also: The inputs that are explained beside it, by name, with how many ids there are of each; None for one that
            holds no ids.
        ends: What of the model is explained: its input or embeddings, which output, at which positions.
        extras: Names of the inputs that are passed through, in order.
        sizes: The axes of the input beside the batch whose size is free, and what sizes they allow.
        precision: `name` (fp32, fp16 or bf16), and for half precision `cotangent_scale`, `float32` (operators that
            stay in it, by name), `operators` and `casts` of one pullback.
        rewrites: At how many places each rewrite of the lowering was made, by its name.
        contributions: What its contribution maps are of; None for a file without.
        parts: What the parts of its logits are; None for a file without.
        text: How a text becomes an input; None for a file without a tokenizer.
        origin: Of what was imported from a file: that file's name, sha256, producer and opset; None for a module.
        beside: The file beside whose own nodes the pullback was put; None for other files.
    """

    version: str
    rules: dict[str, Any]
    program: dict[str, Any]
    target: str
    ledger: dict[str, Any]
    certificate: dict[str, Any] | None = None
    preprocessing: dict[str, Any] | None = None
    classes: list[str] | None = None
    weights_sha256: str | None = None
    explained: str = INPUT
    vocabulary: int | None = None
    also: Mapping[str, int | None] = field(default_factory=dict)
    ends: Ends = field(default_factory=Ends)
    extras: tuple[str, ...] = ()
    sizes: tuple[FreeAxis, ...] = ()
    precision: dict[str, Any] = field(default_factory=lambda: {"name": "fp32"})
    rewrites: dict[str, int] = field(default_factory=dict)
    contributions: Contributions | None = None
    parts: Parts | None = None
    text: Text | None = None
    origin: dict[str, Any] | None = None
    beside: Beside | None = None
    raw: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def program_name(self) -> str:
        """`soft`, `double` or `ascent`."""
        return str(self.program["name"])

    def outputs_of(self, name: str) -> tuple[str, ...]:
        """The outputs that `pullback` or `counterfactual` are in the file: one for each input that is explained."""
        return tuple(own_output(name, part) for part in (self.explained, *self.also)) if self.also else (name,)

    @property
    def explains(self) -> dict[str, int | None]:
        """Every input that is explained, by name, with how many ids there are of it; None for one that holds none."""
        return {self.explained: self.vocabulary, **self.also}

    @property
    def precision_name(self) -> str:
        """`fp32`, `fp16` or `bf16`."""
        return str(self.precision.get("name", "fp32"))


def parse(raw: Mapping[str, str]) -> Metadata:
    """Read the metadata of a file.

    Args:
        raw: The custom metadata map of an ONNX model, strings to strings.

    Raises:
        ValueError: A required key is absent, or a value is not what fxpullback writes. The message names the key.
    """
    absent = [key for key in REQUIRED if key not in raw]
    if absent:
        raise ValueError(f"it lacks the metadata {', '.join(absent)}")
    target = raw[TARGET].strip().strip('"')
    if target not in TARGETS:
        raise ValueError(f"its {TARGET} is {target!r}, which is none of {', '.join(TARGETS)}")
    ledger = _required(raw, LEDGER)
    classes = _parsed(raw, CLASSES, list)
    inputs = _required(raw, INPUTS)
    contributions, parts = _parsed(raw, CONTRIBUTIONS, dict), _parsed(raw, PARTS, dict)
    text = _parsed(raw, TEXT, dict)
    return Metadata(
        version=raw[VERSION],
        rules=_required(raw, RULES),
        program=_required(raw, PROGRAM),
        target=target,
        ledger=ledger,
        certificate=_parsed(raw, CERTIFICATE, dict),
        preprocessing=_parsed(raw, PREPROCESSING, dict),
        classes=None if classes is None else [str(name) for name in classes],
        weights_sha256=raw.get(WEIGHTS_SHA256),
        explained=str(inputs["explained"]),
        vocabulary=inputs.get("vocabulary"),
        also=inputs.get("also", {}),
        ends=Ends.from_dict(inputs),
        extras=tuple(map(str, inputs["extras"])),
        sizes=tuple(FreeAxis.from_dict(axis) for axis in _parsed(raw, SIZES, list) or []),
        precision=_parsed(raw, PRECISION, dict) or {"name": "fp32"},
        rewrites=_required(raw, REWRITES),
        contributions=None if contributions is None else Contributions.from_dict(contributions),
        parts=None if parts is None else Parts.from_dict(parts),
        text=None if text is None else Text.from_dict(text),
        origin=_parsed(raw, ORIGIN, dict),
        beside=beside_of(raw),
        raw=dict(raw),
    )


def beside_of(raw: Mapping[str, str]) -> Beside | None:
    """The file beside whose own nodes a pullback was put, where it was.

    Raises:
        ValueError: the value is not what fxpullback writes.
    """
    found = _parsed(raw, BESIDE, dict)
    try:
        return None if found is None else Beside.from_dict(found)
    except TypeError as error:
        raise ValueError(f"its {BESIDE} is incomplete ({error})") from error


def _required(raw: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object under a key that every file has."""
    found = _parsed(raw, key, dict)
    if found is None:
        raise ValueError(f"its {key} is empty")
    return dict(found)


def _parsed(raw: Mapping[str, str], key: str, kind: type) -> Any:
    """The JSON value under `key`; None when the key is absent or holds null."""
    if key not in raw or not raw[key].strip():
        return None
    try:
        value = json.loads(raw[key])
    except json.JSONDecodeError as error:
        raise ValueError(f"its {key} is not valid JSON ({error})") from error
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"its {key} is a JSON {type(value).__name__}, where a {kind.__name__} belongs")
    return value
