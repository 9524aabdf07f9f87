"""Networks that are not linear in Simon et al. 2023: Figure 2 A, B and the alignment tables of appendix E, on small networks.

Encoders are trained full-batch on pairs of crops of photographs with the Barlow Twins loss, from a small readout, and their steps and
embeddings held against what the kernel theory says from their own empirical neural tangent kernel (NTK), at the start and at the end.

Readings: appendix D.1 scales "weights" by alpha = 1e-4 at the start. With all weights scaled the NTK is of order alpha^2 and nothing
moves within the printed steps; here alpha scales the readout. What a pixel is the paper does not say: here each colour has mean 0
and variance 1 over all views.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_dyn._checks import require, require_positive
from jepa_dyn.kernels import empirical_ntk
from jepa_dyn.losses import barlow_twins_loss
from jepa_dyn.metrics import detect_steps, effective_rank_of_eigenvalues, find_plateaus, subspace_alignment, chance_alignment
from jepa_dyn.moments import RandomCrop, photographs, view_pairs
from jepa_dyn.papers import simon2023_nonlinear_checks as claims
from jepa_dyn.papers._figure import PAPERS, in_float64, with_checks
from jepa_dyn.training import embed_pairs, in_coordinates, one_hidden_layer_encoder, train_full_batch

if TYPE_CHECKING:
    import xarray

KERNELS = ("initial", "final")
TIME = {"long_name": "time t = learning rate x step"}


def photograph_pairs(pairs: int, patch_size: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of colour crops of scikit-learn's photographs, at most 3/5 of their side apart; every colour of mean 0, variance 1.

    Two crops of 20 x 20 pixels of one CIFAR image of 32 x 32 lie up to 12 pixels apart, as do these.
    """
    views = RandomCrop(patch_size, max_offset=round(0.6 * patch_size))
    both = np.stack(view_pairs(photographs(), pairs, key, views, grayscale=False)).astype(float)
    pixels = both.reshape(-1, 3)
    return tuple(((pixels - pixels.mean(axis=0)) / pixels.std(axis=0)).reshape(both.shape))
