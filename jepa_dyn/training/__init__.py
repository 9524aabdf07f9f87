"""Training of networks that are not linear, with the spectra of their embeddings tracked."""

from jepa_dyn.training.encoders import (
    ConvolutionalEncoder,
    OneHiddenLayerEncoder,
    convolutional_encoder,
    in_coordinates,
    one_hidden_layer_encoder,
    scale_parameters,
)
from jepa_dyn.training.full_batch import embed_pairs, embedding_spectrum, train_full_batch
from jepa_dyn.training.prediction import tangent_kernel_prediction

__all__ = [
    "ConvolutionalEncoder",
    "OneHiddenLayerEncoder",
    "convolutional_encoder",
    "embed_pairs",
    "embedding_spectrum",
    "in_coordinates",
    "one_hidden_layer_encoder",
    "scale_parameters",
    "tangent_kernel_prediction",
    "train_full_batch",
]
