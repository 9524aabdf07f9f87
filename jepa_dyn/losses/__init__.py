"""The loss zoo: pure functions of the embeddings of two views, one row per pair.

Embeddings are (batch, dim) arrays, every loss is a number, options go by keyword. There are five kinds of input:

    views       loss(first, second)              both branches get gradients: invariance, alignment, alignment_uniformity,
                                                 contrastive_limit, info_nce, nt_xent, vicreg, barlow_twins,
                                                 standardised_barlow_twins
    prediction  loss(prediction, target)         one direction, the target is held fixed: byol, simsiam; both directions by
                                                 `symmetrised(loss, predictions, targets, weight=LOSSES[name].direction_weight)`
    queue       loss(queries, keys, queue)       keys and queue are held fixed: moco; afterwards queue = enqueue(queue, keys)
    scales      loss(predictions, targets)       K arrays each, the targets are held fixed: jepa
    pixels      loss(reconstruction, pixels)     hidden=mask says what counts: mae

`LOSSES[name]` holds the function, its kind of input, the smallest batch and the options; `zoo_loss(name, **options)` is the loss
with its options filled in. Conventions, unless a loss says otherwise: summed over dim, mean over the batch; no centring; variances
divide by batch - 1 and eps is inside the root (VICReg), or by batch (standardised Barlow Twins); natural logarithms. Stop gradients
are inside the loss, `stop_gradient=False` is the ablation. A row of zeros under a cosine stays zero and has no gradient. Nothing
here draws random numbers or keeps state; everything passes `jax.jit`, `jax.vmap` and `jax.grad`. At complete collapse, all rows of
all arrays equal, all are finite, and all have gradient 0 but Barlow Twins without centring, which sees the mean as well.
"""

from jepa_dyn.losses.barlow_twins import barlow_twins_loss, cross_correlation
from jepa_dyn.losses.barlow_twins_standardised import standardised_barlow_twins_loss
from jepa_dyn.losses.contrastive import info_nce_loss, mutual_information_bound, nt_xent_loss
from jepa_dyn.losses.gaussian_cosine import gaussian_cosine_gradients, gaussian_cosine_loss
from jepa_dyn.losses.hypersphere import (
    alignment_loss,
    alignment_uniformity_loss,
    contrastive_limit_loss,
    uniformity_loss,
)
from jepa_dyn.losses.invariance import invariance_loss
from jepa_dyn.losses.moco import KeyQueue, enqueue, key_queue, moco_loss
from jepa_dyn.losses.prediction import byol_loss, jepa_loss, mae_loss, simsiam_loss, symmetrised
from jepa_dyn.losses.predictor import closed_form_predictor, predictor_eigenvalues
from jepa_dyn.losses.representation import (
    TABLE_1,
    RepresentationLoss,
    distance,
    distance_gradients,
    representation_gradients,
    representation_loss,
)
from jepa_dyn.losses.vicreg import vicreg_loss
from jepa_dyn.losses.zoo import LOSSES, ZooLoss, zoo_loss

__all__ = [
    "LOSSES",
    "TABLE_1",
    "KeyQueue",
    "RepresentationLoss",
    "ZooLoss",
    "alignment_loss",
    "alignment_uniformity_loss",
    "barlow_twins_loss",
    "byol_loss",
    "closed_form_predictor",
    "contrastive_limit_loss",
    "cross_correlation",
    "distance",
    "distance_gradients",
    "enqueue",
    "gaussian_cosine_gradients",
    "gaussian_cosine_loss",
    "info_nce_loss",
    "invariance_loss",
    "jepa_loss",
    "key_queue",
    "mae_loss",
    "moco_loss",
    "mutual_information_bound",
    "nt_xent_loss",
    "predictor_eigenvalues",
    "representation_gradients",
    "representation_loss",
    "simsiam_loss",
    "standardised_barlow_twins_loss",
    "symmetrised",
    "uniformity_loss",
    "vicreg_loss",
    "zoo_loss",
]
