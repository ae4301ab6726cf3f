"""The table of metrics: what each is called, what it needs, which way is better, and how it asks one picture.

Each takes a `Trial` and a method, and gives a value for each of its columns. What does not hang on the method (the
patches' drops, random sets, random changes) is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fxpullback.export.evaluate import faithfulness as faith
from fxpullback.export.evaluate import insertion, localisation, robustness, sanity
from fxpullback.export.evaluate.methods import Method
from fxpullback.export.evaluate.patches import Mask, Parts, Real, batches, without
from fxpullback.export.evaluate.similarity import pearson
from fxpullback.export.evaluate.trial import Trial, Values

TRUTH, MASKS, ANY_CLASS, WEIGHTS = "truth", "masks", "any class", "weights"
SET_SHARE = 1 / 8
"""Share of the patches in a random set."""
SQUARES = (1 / 14, 1 / 3)
"""Smallest and largest side of a random square, as a share of the picture's."""
DEPTHS = {"top layer": 0.0, "half": 0.5, "all": 1.0}


@dataclass(frozen=True)
class Column:
    """One number of a metric.

    Attributes:
        name: What it is called.
        high: Whether more is better.
        text: What it says, in a line.
        hits: Whether each value is 0 or 1.
    """

    name: str
    high: bool
    text: str
    hits: bool = False


@dataclass(frozen=True)
class Metric:
    """One thing to measure.

    Attributes:
        name: What it is called on the command line.
        columns: What it gives.
        measure: From a picture and a method to a value for each column.
        text: What it asks, and who asked it first.
        needs: `truth`: labels of four classes. `masks`: where the object is. `any class`: methods that explain
            whatever class they are asked for. `weights`: methods whose network can be randomised.
        default: Whether it is measured unless others are named.
    """

    name: str
    columns: tuple[Column, ...]
    measure: Callable[[Trial, Method], Values]
    text: str
    needs: frozenset[str] = frozenset()
    default: bool = True


def _occlusion(trial: Trial, method: Method) -> Values:
    found = {}
    for name, grid in (("occlusion", trial.settings.grid), ("occlusion, wide", trial.settings.grid // 2)):
        parts = trial.parts(grid)
        fallen = trial.once(name, partial(_each, trial, parts))
        found[name] = faith.occlusion(trial.flat(method), parts, fallen)
    return found


def _each(trial: Trial, parts: Parts) -> Real:
    """The drop of the logit without each part."""
    return faith.drops(trial.score, trial.picture, trial.blank, parts, faith.single(parts))


def _insertion(trial: Trial, method: Method) -> Values:
    parts = trial.parts(trial.settings.grid)
    inserted, deleted = insertion.curves(
        trial.probability, trial.picture, trial.blank, trial.flat(method), parts, trial.settings.steps
    )
    come, gone = insertion.area(inserted), insertion.area(deleted)
    return {"insertion": come, "deletion": gone, "insertion - deletion": come - gone}


def _faithfulness_correlation(trial: Trial, method: Method) -> Values:
    parts = trial.parts(trial.settings.grid)
    count = int(parts.max()) + 1
    size = max(1, round(SET_SHARE * count))
    sets = faith.random_sets(trial.rng("faithfulness-correlation"), count, size, trial.settings.runs)
    fallen = trial.once("sets", lambda: faith.drops(trial.score, trial.picture, trial.blank, parts, sets))
    return {"faithfulness correlation": faith.faithfulness_correlation(trial.flat(method), parts, sets, fallen)}


def _faithfulness_estimate(trial: Trial, method: Method) -> Values:
    value = faith.faithfulness_estimate(
        trial.score, trial.picture, trial.blank, trial.flat(method), trial.settings.steps
    )
    return {"faithfulness estimate": value}


def _monotonicity(trial: Trial, method: Method) -> Values:
    value = faith.monotonicity(trial.score, trial.picture, trial.blank, trial.flat(method), trial.settings.steps)
    return {"monotonicity": value}


def _monotonicity_correlation(trial: Trial, method: Method) -> Values:
    settings, rng = trial.settings, trial.rng("monotonicity-correlation")
    flat = trial.flat(method)
    value = faith.monotonicity_correlation(trial.score, trial.picture, flat, settings.steps, settings.samples, rng)
    return {"monotonicity correlation": value}


def _infidelity(trial: Trial, method: Method) -> Values:
    height, width = trial.picture.shape[-2:]
    masks = faith.random_squares(trial.rng("infidelity"), height, width, trial.settings.runs, *SQUARES)
    fallen = trial.once("squares", lambda: _fallen(trial, masks))
    maps, flat = trial.maps(method), trial.flat(method)
    predicted = np.concatenate(
        [
            faith.predicted_changes(
                maps,
                flat,
                trial.picture - without(trial.picture, trial.blank, masks[some]),
                masks[some],
                slope=method.slope,
            )
            for some in batches(len(masks), faith.CHUNK)
        ]
    )
    missed, share = faith.infidelity(predicted, fallen)
    return {"infidelity": missed, "infidelity, share": share, "predicted change": pearson(predicted, fallen)}


def _fallen(trial: Trial, masks: Mask) -> Real:
    start = trial.score(trial.picture[None])[0]
    gone = [trial.score(without(trial.picture, trial.blank, masks[some])) for some in batches(len(masks), faith.CHUNK)]
    return np.asarray(start - np.concatenate(gone), dtype=np.float64)


def _max_sensitivity(trial: Trial, method: Method) -> Values:
    settings = trial.settings
    value = robustness.max_sensitivity(
        lambda x: trial.explain(method, x),
        trial.picture,
        trial.maps(method),
        settings.radius,
        settings.samples,
        trial.rng("max-sensitivity"),
    )
    return {"max-sensitivity": value}


def _random_logit(trial: Trial, method: Method) -> Values:
    other = sanity.other_class(trial.index, len(trial.logits), trial.rng("random-logit"))
    maps = trial.explain(method, trial.picture[None], other)[0]
    return {"random logit": sanity.random_logit(trial.maps(method), maps)}


def _randomisation(trial: Trial, method: Method) -> Values:
    found = {}
    for name, share in DEPTHS.items():
        again = trial.again(method.name, share)
        assert again is not None, "asked of methods that have weights alone"
        maps = trial.explain(again, trial.picture[None])
        found[f"randomised: {name}"] = sanity.randomisation(trial.flat(method), again.flat(maps)[0])
    return found


def _mosaic(trial: Trial, method: Method) -> Values:
    rng = trial.rng("mosaic")
    others: list[int] = []
    for place in rng.permutation(len(trial.labels)):
        label = trial.labels[place]
        if label is not None and label not in [trial.labels[held] for held in (*others, trial.place)]:
            others.append(int(place))
        if len(others) == 3:
            break
    own = int(rng.integers(4))
    places = [*others[:own], trial.place, *others[own:]]
    made, masks = localisation.mosaic([trial.pictures[place] for place in places])
    flat = method.flat(trial.explain(method, made[None], trial.labels[trial.place]))[0]
    return {
        "grid pointing": localisation.share_inside(flat, masks[own]),
        "pointing game": localisation.points_inside(flat, masks[own]),
    }


def _object_share(trial: Trial, method: Method) -> Values:
    mask, flat = trial.mask(), trial.flat(method)
    return {
        "object share": localisation.share_inside(flat, mask),
        "object hit": localisation.points_inside(flat, mask),
        "object lift": localisation.share_inside(flat, mask) / float(mask.mean()),
    }


METRICS: tuple[Metric, ...] = (
    Metric(
        "occlusion",
        (
            Column(
                "occlusion", True, "correlation of the map, patch by patch, with the logit's drop without the patch"
            ),
            Column("occlusion, wide", True, "the same with patches twice as wide"),
        ),
        _occlusion,
        "Does the map say which patches the class needs? Each is replaced by the blurred picture. (Zeiler and "
        "Fergus, 2014.)",
    ),
    Metric(
        "insertion",
        (
            Column("insertion", True, "area under the probability as patches come, the strongest first"),
            Column("deletion", False, "area under the probability as patches go, the strongest first"),
            Column("insertion - deletion", True, "the first minus the second"),
        ),
        _insertion,
        "Does the class come soon, and go soon, in the order of the map? The blurred picture is what is there "
        "before. (Petsiuk et al., 2018.)",
    ),
    Metric(
        "mosaic",
        (
            Column(
                "grid pointing", True, "share of the positive part in the class's own quarter of a mosaic; chance .25"
            ),
            Column("pointing game", True, "how often the map is largest in that quarter; chance .25", True),
        ),
        _mosaic,
        "Does the map point at the class among four pictures of four classes? (Focus: Arias-Duart et al., 2022; "
        "Zhang et al., 2016.)",
        frozenset({TRUTH, ANY_CLASS}),
    ),
    Metric(
        "object-share",
        (
            Column("object share", True, "share of the positive part on the object"),
            Column("object hit", True, "how often the map is largest on the object", True),
            Column("object lift", True, "share on the object over the object's share of the area; chance 1"),
        ),
        _object_share,
        "Does the map lie on the object, where the pictures say where that is?",
        frozenset({MASKS}),
    ),
    Metric(
        "infidelity",
        (
            Column("infidelity", False, "squared error of the predicted change of the logit, scaled as fits best"),
            Column("infidelity, share", False, "the same as a share of the squared change; 1 says nothing"),
            Column("predicted change", True, "correlation of the predicted change of the logit with the true one"),
        ),
        _infidelity,
        "Does the map predict how the logit changes when random squares are blurred? (Yeh et al., 2019.)",
    ),
    Metric(
        "faithfulness-correlation",
        (Column("faithfulness correlation", True, "correlation of random sets of patches with the drop without them"),),
        _faithfulness_correlation,
        "Does the map say how much random sets of patches matter together? (Bhatt et al., 2020.)",
    ),
    Metric(
        "faithfulness-estimate",
        (
            Column(
                "faithfulness estimate", True, "correlation of groups of pixels, by rank, with the drop without them"
            ),
        ),
        _faithfulness_estimate,
        "Do the pixels that the map ranks high matter more? (Alvarez-Melis and Jaakkola, 2018.)",
    ),
    Metric(
        "monotonicity",
        (Column("monotonicity", True, "share of steps that do not lower the logit as pixels come, the weakest first"),),
        _monotonicity,
        "Does every group of pixels that comes help, the weakest first? (Arya et al., 2019.)",
    ),
    Metric(
        "monotonicity-correlation",
        (
            Column(
                "monotonicity correlation", True, "rank correlation of groups with how much random pixels there matter"
            ),
        ),
        _monotonicity_correlation,
        "Does the map rank groups of pixels by how much they matter? (Nguyen and Martinez, 2020.)",
        default=False,
    ),
    Metric(
        "max-sensitivity",
        (
            Column(
                "max-sensitivity", False, "how far the map moves at most when pixels hardly do, as a share of its norm"
            ),
        ),
        _max_sensitivity,
        "Does the map hold still when pixels hardly move? A map that knows nothing holds still, too. (Yeh et al., "
        "2019.)",
        frozenset({ANY_CLASS}),
    ),
    Metric(
        "random-logit",
        (Column("random logit", False, "correlation of the map with that of a random other class"),),
        _random_logit,
        "Does the map change with the class it is asked for? Sanity: a map that does not explains no class. (Sixt et "
        "al., 2020.)",
        frozenset({ANY_CLASS}),
    ),
    Metric(
        "randomisation",
        tuple(
            Column(f"randomised: {name}", False, f"rank correlation with the map under random weights: {name}")
            for name in DEPTHS
        ),
        _randomisation,
        "Does the map change when what the network learnt is lost, from the top down? Sanity: a map that does not "
        "explains no network. (Adebayo et al., 2018.)",
        frozenset({WEIGHTS, ANY_CLASS}),
    ),
)
