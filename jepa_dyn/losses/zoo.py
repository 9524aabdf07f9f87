"""The loss zoo by name: which function, what it takes, how small a batch may be."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jepa_dyn._checks import require_choice
from jepa_dyn.losses.barlow_twins import barlow_twins_loss
from jepa_dyn.losses.barlow_twins_standardised import standardised_barlow_twins_loss
from jepa_dyn.losses.contrastive import info_nce_loss, nt_xent_loss
from jepa_dyn.losses.hypersphere import alignment_loss, alignment_uniformity_loss, contrastive_limit_loss
from jepa_dyn.losses.invariance import invariance_loss
from jepa_dyn.losses.moco import moco_loss
from jepa_dyn.losses.prediction import byol_loss, jepa_loss, mae_loss, simsiam_loss
from jepa_dyn.losses.vicreg import vicreg_loss

INPUTS = {
    "views": ("first", "second"),
    "prediction": ("prediction", "target"),
    "queue": ("queries", "keys", "queue"),
    "scales": ("predictions", "targets"),
    "pixels": ("reconstruction", "pixels"),
}


@dataclass(frozen=True)
class ZooLoss:
    """One loss of the zoo.

    - `function`: called with the arrays that `inputs` names, and options by keyword; returns a number.
    - `inputs`: a key of `INPUTS`. "views": both branches get gradients. "prediction", "scales", "pixels": the target is held fixed.
      "queue": keys and queue are held fixed.
    - `least_batch`: pairs that it needs.
    - `direction_weight`: of each direction where a prediction loss is `symmetrised`.
    """

    function: Callable[..., Any]
    inputs: str
    least_batch: int = 1
    direction_weight: float = 1.0

    @property
    def options(self) -> dict[str, Any]:
        """Options by keyword and their defaults."""
        parameters = inspect.signature(self.function).parameters
        return {name: one.default for name, one in parameters.items() if one.default is not inspect.Parameter.empty}


LOSSES: dict[str, ZooLoss] = {
    "invariance": ZooLoss(invariance_loss, "views"),
    "alignment": ZooLoss(alignment_loss, "views"),
    "alignment_uniformity": ZooLoss(alignment_uniformity_loss, "views", 2),
    "contrastive_limit": ZooLoss(contrastive_limit_loss, "views"),
    "info_nce": ZooLoss(info_nce_loss, "views"),
    "nt_xent": ZooLoss(nt_xent_loss, "views"),
    "vicreg": ZooLoss(vicreg_loss, "views", 2),
    "barlow_twins": ZooLoss(barlow_twins_loss, "views"),
    "standardised_barlow_twins": ZooLoss(standardised_barlow_twins_loss, "views"),
    "moco": ZooLoss(moco_loss, "queue"),
    "byol": ZooLoss(byol_loss, "prediction"),
    "simsiam": ZooLoss(simsiam_loss, "prediction", direction_weight=0.5),
    "jepa": ZooLoss(jepa_loss, "scales"),
    "mae": ZooLoss(mae_loss, "pixels"),
}


def zoo_loss(name: str, **options: Any) -> Callable[..., Any]:
    """The loss of that name with options filled in: a function of the arrays alone, see `LOSSES[name].inputs`.

    Raises:
        ValueError: an unknown name or option.
    """
    require_choice("name", name, tuple(LOSSES))
    entry = LOSSES[name]
    for option in options:
        require_choice(f"an option of {name}", option, tuple(entry.options))
    return functools.partial(entry.function, **options)
