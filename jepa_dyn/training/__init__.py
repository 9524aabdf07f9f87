"""Training of networks that are not linear, with the spectra of their embeddings and hidden layers tracked.

Many small runs at once, each lane with its own seed and numbers; everything that has one axis of the same length is a lane:

    images, labels = load_labelled_images()            # digits; CIFAR-10, CIFAR-100, STL-10 by path
    def make(key):
        first, second, third = jax.random.split(key, 3)
        encoder, projector = perceptron(first, 36, 64), linear_network(second, 64, 32)
        return JointEmbedding(encoder, projector, perceptron(third, 32, 32, widths=(64,)), target="ema")
    runs = train_networks(
        make, images, "byol", 2000, views=TwoViews((Crop(6), GaussianNoise(0.1))), labels=labels,
        seeds=np.arange(8), learning_rate=np.geomspace(0.01, 1, 8), target_momentum=cosine_momentum(0.99, 1.0, 2000),
    )
    runs                                               # prints itself; runs.to_xarray(), runs.raise_if_failed()
    runs.ys["eigenvalues"]                             # (8, logs, 32); "hidden_layer_0", "probe_accuracy", "loss", ...

Any loss of `jepa_dyn.losses` and any function of two arrays (batch, dim) is a loss, with options by `functools.partial`:
`partial(losses.nt_xent_loss, temperature=np.geomspace(0.05, 1, 8))`. Without `views` the images are fixed pairs (x, y) of rows.
`MaskedPrediction` is a block-masked JEPA. `train_full_batch` trains one network on all pairs, for comparisons with the kernel
theory.
"""

from jepa_dyn.training.checkpoint import CheckpointMismatch
from jepa_dyn.training.encoders import (
    ConvolutionalEncoder,
    OneHiddenLayerEncoder,
    convolutional_encoder,
    in_coordinates,
    one_hidden_layer_encoder,
    scale_parameters,
)
from jepa_dyn.training.full_batch import embed_pairs, embedding_spectrum, train_full_batch
from jepa_dyn.training.joint_embedding import DirectPredictor, JointEmbedding
from jepa_dyn.training.layers import BatchNorm, GroupNorm
from jepa_dyn.training.masked_prediction import (
    BlockPredictor,
    MaskedPrediction,
    VisionTransformer,
    block_predictor,
    vision_transformer,
)
from jepa_dyn.training.network_runs import NetworkRuns
from jepa_dyn.training.networks import (
    StagedNetwork,
    deep_linear_network,
    linear_network,
    perceptron,
    residual_network,
)
from jepa_dyn.training.prediction import tangent_kernel_prediction
from jepa_dyn.training.schedules import MomentumSchedule, cosine_momentum, linear_momentum
from jepa_dyn.training.train_networks import train_networks
from jepa_dyn.training.transforms import (
    ColourJitter,
    Crop,
    Flip,
    GaussianNoise,
    Greyscale,
    ResizedCrop,
    Standardise,
)
from jepa_dyn.training.view_pipelines import BlockMasks, HiddenPatches, TwoViews

__all__ = [
    "BatchNorm",
    "BlockMasks",
    "BlockPredictor",
    "CheckpointMismatch",
    "ColourJitter",
    "ConvolutionalEncoder",
    "Crop",
    "DirectPredictor",
    "Flip",
    "GaussianNoise",
    "Greyscale",
    "GroupNorm",
    "HiddenPatches",
    "JointEmbedding",
    "MaskedPrediction",
    "MomentumSchedule",
    "NetworkRuns",
    "OneHiddenLayerEncoder",
    "ResizedCrop",
    "StagedNetwork",
    "Standardise",
    "TwoViews",
    "VisionTransformer",
    "block_predictor",
    "convolutional_encoder",
    "cosine_momentum",
    "deep_linear_network",
    "embed_pairs",
    "embedding_spectrum",
    "in_coordinates",
    "linear_momentum",
    "linear_network",
    "one_hidden_layer_encoder",
    "perceptron",
    "residual_network",
    "scale_parameters",
    "tangent_kernel_prediction",
    "train_full_batch",
    "train_networks",
    "vision_transformer",
]
