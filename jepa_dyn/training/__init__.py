"""Training of networks that are not linear, with the spectra of their embeddings and hidden layers tracked.

Many small runs at once, each lane with its own seed and numbers; everything that has one axis of the same length is a lane:

    images, labels = load_labelled_images()          # digits; CIFAR-10, CIFAR-100, STL-10 and folders by path
    def make(key):
        first, second, third = jax.random.split(key, 3)
        encoder = perceptron_encoder(first, 36, 64, widths=(256,))
        return JointEmbedding(encoder, linear_head(second, 64, 32), perceptron_head(third, 32, 32, width=64), target="ema")
    runs = train_networks(
        make, images, partial(similarity_loss), 2000, views=TwoViews(first=(Crop(6), GaussianNoise(0.1))), labels=labels,
        seeds=np.arange(8), learning_rate=np.geomspace(0.01, 1, 8), target_momentum=cosine_momentum(0.99, 1.0, 2000),
    )
    runs                                             # prints itself; runs.to_xarray(), runs.raise_if_failed()
    runs.ys["eigenvalues"]                           # (lanes, logs, d); "hidden.layer_0", "probe_accuracy", "loss", ...

Every loss of two arguments fits: its first are the predictions of the online branch from one view, its second what the target
branch makes of the other (the embeddings of both without predictor and with target "online").
`train_full_batch` trains one network on all pairs at once, for comparisons with the kernel theory.
"""

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
