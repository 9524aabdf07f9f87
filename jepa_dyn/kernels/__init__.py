"""Kernels on view pairs: kernel functions, the empirical tangent kernel of a network, Barlow Twins through any kernel."""

from jepa_dyn.kernels.closed_form import RBF, ArcCosine, linear
from jepa_dyn.kernels.embedding import EmbeddingTrajectory, KernelBarlowTwins, kernel_barlow_twins
from jepa_dyn.kernels.empirical import empirical_ntk
from jepa_dyn.kernels.infinite_width import ReluNngp, ReluNtk
from jepa_dyn.kernels.spectrum import PairSpectrum, pair_spectrum, two_encoder_spectrum

__all__ = [
    "RBF",
    "ArcCosine",
    "EmbeddingTrajectory",
    "KernelBarlowTwins",
    "PairSpectrum",
    "ReluNngp",
    "ReluNtk",
    "empirical_ntk",
    "kernel_barlow_twins",
    "linear",
    "pair_spectrum",
    "two_encoder_spectrum",
]
