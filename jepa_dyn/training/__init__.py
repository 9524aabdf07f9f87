"""Training of networks that are not linear, with the spectra of their embeddings tracked."""

from jepa_dyn.training.encoders import (
    ConvolutionalEncoder,
    convolutional_encoder,
    in_coordinates,
    one_hidden_layer_encoder,
    scale_parameters,
)
from jepa_dyn.training.full_batch import embed_pairs, embedding_spectrum, train_full_batch

__all__ = [
    "ConvolutionalEncoder",
    "convolutional_encoder",
    "embed_pairs",
    "embedding_spectrum",
    "in_coordinates",
    "one_hidden_layer_encoder",
    "scale_parameters",
    "train_full_batch",
]
