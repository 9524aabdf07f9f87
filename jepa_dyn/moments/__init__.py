"""What the data looks like: second moments of view pairs, their features, closed-form models, views of real images."""

from jepa_dyn.moments.additive_noise import (
    PairBatches,
    PairSample,
    additive_noise_moments,
    noisy_pairs,
    pair_sample,
)
from jepa_dyn.moments.binary_datasets import read_cifar, read_cifar_labels, read_stl10, read_stl10_labels
from jepa_dyn.moments.diagonalisability import DiagonalisabilityDefect
from jepa_dyn.moments.eigenbasis import EigenbasisMoments, eigenbasis, eigenbasis_from_pairs
from jepa_dyn.moments.gaussian_batches import (
    GaussianBatches,
    JointFactor,
    WishartBatches,
    batch_moments,
    draw_moments,
    draw_pair_moments,
    draw_pairs,
    joint_factor,
)
from jepa_dyn.moments.images import load_images, load_labelled_images, photographs, read_folder, read_image
from jepa_dyn.moments.pairs import MomentAccumulator, moments_from_batches, moments_from_pairs
from jepa_dyn.moments.random_masking import (
    MaskingSpectrum,
    RandomMaskingModel,
    gaussian_rows,
    masking_moments,
    masking_pair_batches,
    masking_spectrum,
    orthonormal_rows,
    random_masking_model,
    sample_masking_pairs,
    sparse_variances,
)
from jepa_dyn.moments.spectrum import BASES, FeatureSpectrum, feature_spectrum
from jepa_dyn.moments.temporal_model import (
    TemporalModel,
    sample_temporal_frames,
    temporal_model,
    temporal_moments,
    temporal_pair_batches,
    temporal_spectrum,
)
from jepa_dyn.moments.view_kinds import VIEW_KINDS, BlockMask, RandomCrop, TemporalShift, ViewKind
from jepa_dyn.moments.view_moments import ViewMoments, moments_from_spectrum, view_moments
from jepa_dyn.moments.views import view_pair_batches, view_pairs

__all__ = [
    "BASES",
    "VIEW_KINDS",
    "BlockMask",
    "DiagonalisabilityDefect",
    "EigenbasisMoments",
    "FeatureSpectrum",
    "GaussianBatches",
    "JointFactor",
    "MaskingSpectrum",
    "MomentAccumulator",
    "PairBatches",
    "PairSample",
    "RandomCrop",
    "RandomMaskingModel",
    "TemporalModel",
    "TemporalShift",
    "ViewKind",
    "ViewMoments",
    "WishartBatches",
    "additive_noise_moments",
    "batch_moments",
    "draw_moments",
    "draw_pair_moments",
    "draw_pairs",
    "eigenbasis",
    "eigenbasis_from_pairs",
    "feature_spectrum",
    "gaussian_rows",
    "joint_factor",
    "load_images",
    "load_labelled_images",
    "masking_moments",
    "masking_pair_batches",
    "masking_spectrum",
    "moments_from_batches",
    "moments_from_pairs",
    "moments_from_spectrum",
    "noisy_pairs",
    "orthonormal_rows",
    "pair_sample",
    "photographs",
    "random_masking_model",
    "read_cifar",
    "read_cifar_labels",
    "read_folder",
    "read_image",
    "read_stl10",
    "read_stl10_labels",
    "sample_masking_pairs",
    "sample_temporal_frames",
    "sparse_variances",
    "temporal_model",
    "temporal_moments",
    "temporal_pair_batches",
    "temporal_spectrum",
    "view_moments",
    "view_pair_batches",
    "view_pairs",
]
