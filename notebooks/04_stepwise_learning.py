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
# # Stepwise learning: Barlow Twins on photographs, one feature at a time
#
# A linear encoder $f(x) = W x$ trained with the Barlow Twins loss $\|C - I\|^2$, $C$ the cross-correlation of two views, learns its
# embedding in discrete steps: long plateaus, then one more dimension. When each step comes, and what it adds, can be told from the
# data and the start before any training. Here this is done for pairs of crops of photographs, theory over simulation; then the
# question that the theory invites: **which loss learns all modes soonest**, and where does each of the quick ones fail?
#
# Theory: Simon et al. (2023), *On the Stepwise Nature of Self-Supervised Learning*. Equation numbers are theirs; where the print
# is wrong we say so.

# %%
import importlib.util
import io
import os
import subprocess
import sys

if importlib.util.find_spec("jepa_dyn") is None:
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "jepa_dyn[all]"])

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from IPython.display import Image, display

import jepa_dyn
from jepa_dyn import flows, moments, solve
from jepa_dyn.metrics import crossing_times
from jepa_dyn.papers import simon2023
from jepa_dyn.theory.barlow_twins_alignment import alignment_exponent, small_start

jepa_dyn.enable_x64()  # starts of 1e-7, times over four decades
FAST = os.environ.get("JEPA_DYN_FAST") == "1"  # a quick run, for testing


def show(figure, dpi=84, colours=40):
    """The figure in few colours, which keeps the notebook small."""
    plain, small = io.BytesIO(), io.BytesIO()
    figure.savefig(plain, dpi=dpi)
    plt.close(figure)
    PIL.Image.open(plain).convert("RGB").quantize(colours).save(small, "PNG", optimize=True)
    display(Image(small.getvalue()))


# %% [markdown]
# ## The data: all that a linear encoder sees of them
#
# 500 pairs of colour crops, $20 \times 20$ pixels, $m = 1200$ numbers each. Training only meets the feature cross-correlation
# $\Gamma = \frac{1}{2n} \sum_i (x_i y_i^\top + y_i x_i^\top)$ (4). Its eigenvalues $\gamma_j$, of both signs, say when a feature is
# learned; its eigenvectors are the features. `eigenbasis_from_pairs` finds them without ever forming an $m \times m$ matrix where
# pairs are few.

# %%
pairs, side, d, alpha = (100, 8, 5, 1e-7) if FAST else (500, 20, 10, 1e-7)
views = moments.RandomCrop(side, max_offset=round(0.45 * side))
x, y = moments.view_pairs(moments.load_images(), pairs, 0, views, grayscale=False)
args = flows.barlow_twins_arguments(moments.eigenbasis_from_pairs(x, y))
gammas, features = np.asarray(args.moments.gammas), np.asarray(args.moments.columns).T
print(f"{(gammas > 0).sum()} eigenvalues > 0, {(gammas < 0).sum()} < 0; the first:", np.round(gammas[:d], 3))


def as_image(row):
    """A feature as a picture: grey is zero, light is the sign of its sum."""
    return 0.5 + 0.5 * np.sign(row.sum()) * row.reshape(side, side, 3) / np.abs(row).max()


figure, axes = plt.subplots(2, 9, figsize=(9, 2.5), layout="constrained")
for k in range(4):
    for one, ax in zip((x[k], y[k]), axes[:, k], strict=True):
        ax.imshow(one.reshape(side, side, 3))
for j, ax in enumerate(axes[:, 4:].flat):
    if j < d:
        ax.imshow(as_image(features[j]))
        ax.set_title(f"{gammas[j]:.3g}", fontsize=9, pad=2)
for ax in axes.flat:
    ax.axis("off")
figure.suptitle("Left: four pairs of crops, one above the other. Right: the first features and their γ", fontsize=10)
show(figure, colours=160)

# %% [markdown]
# ## Before training: what will be learned when
#
# From a small start $W(0)$ feature $j$ grows as $e^{4 \gamma_j t}$ until $\gamma_j s_j^2 = 1$. Two things decide when that is: its
# $\gamma_j$, and the part of $W(0) v_j$ that no earlier feature has taken, $s_j(0) = R_{jj}$ of the QR factorisation of
# $W(0) [v_1 \ldots v_d]$. ((19) as printed has a number in place of the projector; with it the second feature would never be
# learned.) `small_start` does this; `critical_times` are (16), exact.

# %%
y0 = flows.barlow_twins_state(alpha * np.random.default_rng(1).normal(size=(d, x.shape[1])))
start = small_start(y0.encoder @ features.T, args.moments.in_basis.gamma)
motion = start.aligned
times = np.asarray(motion.critical_times())
for j in range(d):
    print(
        f"feature {j + 1:2d}: γ = {gammas[j]:8.3f}, s(0) = {float(motion.start[j]) / alpha:.2f} α, learned at t = {times[j]:.4g}"
    )

# %% [markdown]
# ## Training
#
# Full-batch gradient descent, many thousand steps. `train_in_eigenbasis` takes them in the eigenbasis of $\Gamma$: the same steps
# up to rounding as the loop one would write with autodiff, some fifty times as fast at this size
# (`python -m benchmarks.stepwise`); the $W$ that comes back is in pixels.


# %%
def seen(y, args):
    return {"eigenvalues": jnp.linalg.eigvalsh(flows.embedding_cross_correlation(y, args))[::-1], "W": y.encoder}


rate = 0.04 / gammas[0]
steps = np.unique((np.geomspace(times[0] / 4, 1.3 * times.max(), 250) / rate).astype(int))
run = solve.train_in_eigenbasis(flows.barlow_twins, y0, args, steps, learning_rate=rate, observe=seen)
print(run)
ts, found = rate * steps, np.asarray(run.ys["eigenvalues"])
loss = ((1 - found) ** 2).sum(axis=1)
half = np.asarray(crossing_times(ts, found, 0.5))
print("half grown at, trained over predicted:", np.round(half / times, 4))

figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.5), layout="constrained")
colours = plt.cm.viridis(np.linspace(0, 0.85, d))
for j in range(d):
    axes[0].axvline(times[j], color=colours[j], linewidth=0.8, linestyle="--")
    axes[1].plot(ts, found[:, j], color=colours[j], linewidth=2)
axes[0].plot(ts, loss, "k", linewidth=2, label="trained")
axes[0].plot(ts, motion.loss(ts), ":", color="#D55E00", linewidth=2, label="theory (14)")
axes[1].plot(ts, motion.eigenvalues(ts), "k:", linewidth=1.2)
axes[0].set(xscale="log", xlabel="time = learning rate × step", ylabel="loss")
axes[1].set(xscale="log", xlabel="time = learning rate × step", ylabel="eigenvalues of C")
axes[0].set_title("loss; dashed: predicted times", fontsize=10)
axes[1].set_title("trained (colours), theory (10) (dotted)", fontsize=10)
axes[0].legend(frameon=False, fontsize=9)
show(figure)

# %% [markdown]
# The first feature is a little late: a step of size $\eta$ multiplies it by $1 + 4 \gamma \eta$ where the flow has
# $e^{4 \gamma \eta}$. All others are on time to a fraction of a per cent.
#
# ### What each step adds
#
# A learned feature has the singular value $\gamma_j^{-1/2}$: the newest is the largest. So the first right singular vector of $W$,
# taken on each plateau, shows what the last step has added.

# %%
plateaus = np.append(np.sqrt(half[1:] * half[:-1]), ts[-1])
places = np.minimum(np.searchsorted(ts, plateaus), len(ts) - 1)
figure, axes = plt.subplots(1, d, figsize=(10, 1.5), layout="constrained")
for j, (ax, place) in enumerate(zip(axes, places, strict=True)):
    newest = np.linalg.svd(np.asarray(run.ys["W"][place]), full_matrices=False)[2][0]
    ax.imshow(as_image(newest))
    ax.set_title(f"{abs(newest @ features[j]):.4f}", fontsize=9, pad=2)
    ax.axis("off")
figure.suptitle("What each step has added to W, and its overlap with the feature of Γ", fontsize=10)
show(figure, colours=160)

# %% [markdown]
# How close is that to be expected? The encoder follows the aligned motion up to the order of $\alpha^p$,
# $p = 1 - \max_j \gamma_{j+1} / \gamma_j$, and on photographs, where eigenvalues are close, $p$ is small. Times hardly mind; the
# subspace may. (The paper states that the difference vanishes as $\alpha \to 0$, and gives no rate.)

# %%
print(f"p = {float(alignment_exponent(gammas, d)):.3f}: α^p = {alpha ** float(alignment_exponent(gammas, d)):.2f}")
rows = np.linalg.qr(np.asarray(run.final.encoder).T)[0].T
print(f"W spans {100 * np.sum((rows @ features[:d].T) ** 2) / d:.1f} % of the first {d} features")

# %% [markdown]
# ## Can it be had sooner?
#
# Training waits for the smallest $\gamma_j$: the time is about $\log(1/\alpha) / 4 \gamma_d$, and a larger learning rate is no
# help, since the first mode is lost above $\eta = 1 / 4 \gamma_1$. Appendix G of the paper proposes other losses of the eigenvalues
# $\lambda$ of $C$. Above: their landscape for one mode, $\bar s^2 = \lambda$. Below: where gradient descent on it ends, over the
# learning rate.

# %%
shapes = simon2023.fig9()
figure = simon2023.plot_fig9(shapes)
show(figure)

# %% [markdown]
# * **squared** (1): a plateau at 0. Stable below 1/4, then a 2-cycle, chaos, divergence.
# * **sharp**: a kink at 0, no plateau; stable up to 1. A mode with $\gamma < 0$ (grey), which should die, jumps to and fro.
# * **smooth**: flat above 1. Never unstable, but descent jumps over $\lambda = 1$ and stays where it lands.
# * **quartic**: no curvature at the minimum, so no instability *there*; it overshoots on its way, and diverges here and there.
#
# ## Which loss learns all modes soonest
#
# The same spectrum, one start, five losses: the four, and the gradient preconditioned by the covariance of the embeddings (52).
# Closed forms of all of them are in `theory.barlow_twins_variants`; all are trained at six learning rates.

# %%
found = simon2023.speed_up(**({"pairs": 60, "patch_size": 4, "dimension": 4} if FAST else {}))
figure = simon2023.plot_speed_up(found)
show(figure)

# %%
unit, slow, well = found.attrs["unit"], found.isel(run=1), found.isel(run=slice(1, None))
print("time until all eigenvalues of C are above")
print(f"{'':16}{'1/2':>8} {'0.9':>8} {'0.99':>8}   theory, aligned start")
for loss in found.loss.values:
    one = found.sel(loss=loss)
    print(f"{loss:16}" + " ".join(f"{float(value):8.3g}" for value in one.theory_time))
print("\nfewest steps until all are above 0.9, among the learning rates at which the run ends at C = I")
for loss in found.loss.values:
    one = well.sel(loss=loss, level=0.9)
    steps_to = np.where(one.outcome == "all learned", one.steps_to_all, np.inf)
    best = int(np.argmin(steps_to))
    text = (
        f"{steps_to[best]:8.0f} at {float(one.rate[best]):g} / 4γ₁"
        if np.isfinite(steps_to[best])
        else "   never within the run"
    )
    print(f"{loss:16}{text}")

# %% [markdown]
# The preconditioned gradient wins: it takes a tenth of the time and of the steps of (1), and bears about the same learning rate.
# The sharp loss comes second, and bears twice the learning rate and more; but it leaves zero in all directions at once, before
# the weak features have been sorted out, so that from a random start $W$ spans less of the top features. The smooth loss is no
# faster in flow time; at large learning rates it takes few steps, and leaves $\lambda_1$ wherever it jumped to. The quartic loss
# is twice as fast to $\lambda = 1/2$ and then crawls: $1 - \lambda \approx (32 \gamma t)^{-1/2}$.
#
# ## Yours
#
# Put in photographs of your own (`moments.load_images("my_folder")`), any pairs (`eigenbasis_from_pairs(x, y)`), another loss:
# `flows.SpectralFlow(h)` trains on $\sum h(\lambda)$ for any function $h$ of the eigenvalues that you write. From the command line:
# `jepa-dyn reproduce simon2023.fig1ab --out steps` and `jepa-dyn list`.
