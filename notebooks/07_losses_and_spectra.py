# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One encoder, six losses, six spectra: which collapse, and why
#
# The same small network, from the same start, on the same views of the same digits, trained with six losses. All of them pull the
# embeddings of two views of an image together. What differs is what keeps the embeddings of different images apart, and the
# eigenvalues of the embeddings' covariance show it: a spectrum that shrinks as a whole is **complete collapse**, one that loses
# most of its dimensions is **dimensional collapse**, one that grows step by step is what Simon et al. (2023) describe.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("jepa_dyn") is None:
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "jepa_dyn[all]"])

from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jepa_dyn
from jepa_dyn import losses, metrics
from jepa_dyn.moments import load_labelled_images
from jepa_dyn.training import (
    Crop,
    GaussianNoise,
    JointEmbedding,
    Standardise,
    TwoViews,
    linear_network,
    perceptron,
    train_networks,
)

jepa_dyn.enable_x64()  # eigenvalues over ten decades
FAST = os.environ.get("JEPA_DYN_FAST") == "1"  # a quick run, for testing
plt.rcParams["figure.dpi"] = 54

# %% [markdown]
# ## Images and views
#
# scikit-learn's 8 × 8 digits. A view is a window of 6 × 6 pixels with some noise: two views of one digit differ by a shift.
# The labels are never trained on; a linear probe reads them out of the features as training goes.

# %%
images, labels = load_labelled_images()
test = load_labelled_images(split="test")
views = TwoViews((Standardise(images.mean(), images.std()), Crop(6), GaussianNoise(0.3)))

figure, axes = plt.subplots(3, 8, figsize=(8, 3.2), layout="constrained")
for number, column in enumerate(axes.T):
    x, y = views(jax.random.key(number), jnp.asarray(images[number]))
    for ax, picture in zip(column, (images[number, :, :, 0], x.reshape(6, 6), y.reshape(6, 6)), strict=True):
        ax.imshow(picture, cmap="gray")
        ax.axis("off")
figure.suptitle("Digits (top) and two views of each", fontsize=10)
plt.show()

# %% [markdown]
# ## Six losses, two programs
#
# Encoder: one hidden layer, 32 features. Projector: linear, 16 dimensions. BYOL and SimSiam predict one view from the other by a
# further perceptron, and hold the target fixed.
#
# - **Invariance** alone: $\tfrac{1}{n} \sum |z - z'|^2$. Nothing keeps images apart.
# - **Barlow Twins**: cross-correlation of the standardised dimensions held against the identity.
# - **VICReg**: invariance, a standard deviation of 1 in every dimension, covariances of 0.
# - **SimCLR** (NT-Xent): each view picks its partner out of the batch.
# - **BYOL**: predicts a moving average of the network. **SimSiam**: predicts the network itself; a moving average with momentum 0.
#
# Losses that take the same arrays can share one program: each run ("lane") weighs them with 0 and 1, and has a learning rate of
# its own. BYOL and SimSiam are one loss with two momenta.


# %%
def weighed(first, second, *, invariance, barlow, vicreg, simclr):
    return (
        invariance * losses.invariance_loss(first, second)
        + barlow * losses.standardised_barlow_twins_loss(first, second)
        + vicreg * losses.vicreg_loss(first, second)
        + simclr * losses.nt_xent_loss(first, second, temperature=0.2)
    )


def plain(key):
    first, second = jax.random.split(key)
    return JointEmbedding(perceptron(first, 36, 32, widths=(64,)), linear_network(second, 32, 16))


def predicting(key):
    first, second = jax.random.split(key)
    network = plain(first)
    return JointEmbedding(network.encoder, network.projector, perceptron(second, 16, 16, widths=(16,)), target="ema")


steps = 60 if FAST else 3000
log = np.unique(np.r_[np.geomspace(1, steps + 1, 60).astype(int) - 1, steps])
shared = {
    "views": views, "batch_size": 128, "log_every": log, "labels": labels, "test": test,
    "optimiser": partial(optax.sgd, momentum=0.9),
}  # fmt: skip
weights = dict(zip(("invariance", "barlow", "vicreg", "simclr"), np.eye(4), strict=True))
first = train_networks(
    plain, images, partial(weighed, **weights), steps, learning_rate=np.array([0.2, 0.006, 0.001, 0.03]), **shared
)
second = train_networks(
    predicting,
    images,
    "byol",
    steps,
    target_momentum=np.array([0.99, 0.0]),
    learning_rate=np.array([0.03, 0.03]),
    **shared,
)
names = ("invariance", "Barlow Twins", "VICReg", "SimCLR", "BYOL", "SimSiam")
runs = {
    name: np.concatenate([np.asarray(first.ys[name]), np.asarray(second.ys[name])])
    for name in ("covariance_eigenvalues", "hidden_representation", "probe_accuracy", "loss")
}
print(first, second, sep="\n")

# %% [markdown]
# ## Six spectra

# %%
figure, axes = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained", sharex=True)
for ax, name, values in zip(axes.flat, names, runs["covariance_eigenvalues"], strict=True):
    for path, shade in zip(values.T, plt.cm.viridis(np.linspace(0, 0.9, values.shape[1])), strict=True):
        ax.plot(log + 1, np.maximum(path, 1e-30), color=shade, linewidth=1.3)
    ax.set(xscale="log", yscale="log", ylim=(max(1e-12, values.min() / 3), 3 * values.max()))
    ax.set_title(name, fontsize=11, loc="left")
    ax.grid(True, color="#d9d9d9", linewidth=0.6)
for ax in axes[1]:
    ax.set_xlabel("steps + 1")
for ax in axes[:, 0]:
    ax.set_ylabel("eigenvalues of the covariance")
figure.suptitle("Embeddings of one network under six losses", fontsize=12)
plt.show()

# %% [markdown]
# ## What is left, in numbers
#
# `effective_rank_of_eigenvalues`: how many dimensions a spectrum uses. `collapse_code`: complete, where less than 1/10,000 of
# the variance at the start is left; dimensional, where some eigenvalue is below a thousandth of the largest: lost, or not learned
# yet, which the paths above tell apart. The probe reads the features of the encoder and knows no scale.

# %%
start, end = runs["covariance_eigenvalues"][:, 0], runs["covariance_eigenvalues"][:, -1]
ranks = [np.asarray(metrics.effective_rank_of_eigenvalues(values)) for values in (start, end)]
codes = [metrics.Collapse(int(code)).name for code in metrics.collapse_code(end, scale=start.sum(axis=1), lost=1e-4)]
accuracy = 100 * runs["probe_accuracy"][:, [0, -1]]
print(f"{'':14}{'variance':>20} {'effective rank':>17} {'probe, %':>14}   collapse")
for k, name in enumerate(names):
    print(
        f"{name:14}{start[k].sum():9.2g} → {end[k].sum():8.2g} {ranks[0][k]:8.1f} → {ranks[1][k]:6.1f} "
        f"{accuracy[k, 0]:6.1f} → {accuracy[k, 1]:5.1f}   {codes[k]}"
    )

figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
for k, name in enumerate(names):
    axes[0].plot(
        log + 1, np.asarray(metrics.effective_rank_of_eigenvalues(runs["covariance_eigenvalues"][k])), label=name
    )
    axes[1].plot(log + 1, runs["probe_accuracy"][k], label=name)
axes[0].set(xscale="log", xlabel="steps + 1", ylabel="effective rank of the embeddings")
axes[1].set(xscale="log", xlabel="steps + 1", ylabel="accuracy of the probe")
axes[0].legend(frameon=False, fontsize=9)
for ax in axes:
    ax.grid(True, color="#d9d9d9", linewidth=0.6)
plt.show()

# %% [markdown]
# ## Why
#
# - **Invariance alone** is least at 0: every eigenvalue falls for good, $W(t) = W(0) e^{-2 \eta S t}$ for a linear encoder.
#   Features that differ most between views go first. The probe, which rescales what is left, shows less of it than the variance.
# - **Barlow Twins** and **VICReg** ask for variance in every dimension, and for dimensions that differ. At the start all dimensions
#   find the same strongest feature, so that one eigenvalue rises far; the others follow one at a time, each when what holds
#   dimensions apart outgrows the cost of a feature that views share less. Their low rank is a matter of time: a staircase.
# - **SimCLR** looks at angles alone: images push each other apart whatever the scale. One dimension after another leaves its
#   place, more of them than under any other loss, and the variance keeps growing because the loss does not see it.
# - **BYOL** and **SimSiam** have nothing that pushes images apart, and 0 is as good a solution as for invariance. Yet the variance
#   stays: with the target held fixed, training follows no gradient of the objective, and the features that the predictor has
#   learned to predict grow, while the others stay about where they started. `jepa-dyn reproduce ponce2025.fig2` shows such an
#   objective with its full gradient beside: it collapses.
#
# ## Yours
#
# `load_labelled_images("my_folder")` takes CIFAR, STL-10 or a folder with a subfolder per class. Any function of two arrays
# (batch, dim) is a loss. `jepa-dyn reproduce simon2023.fig5 --out steps` has the staircases of three losses from a small start.
