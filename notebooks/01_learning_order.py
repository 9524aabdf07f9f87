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
# # Which features does a JEPA learn first?
#
# Two views of the same image, an encoder, a predictor: a **JEPA** predicts the *representation* of one view from the other,
# a masked autoencoder (**MAE**) predicts the *view itself*. Both learn the features of the data one after another. This
# notebook predicts, from a few photographs and in seconds, **which** features each of them learns first, **when**, and **how
# strongly**, and then checks the prediction against the integrated learning dynamics.
#
# Theory: Littwin et al. (2024), *How JEPA avoids noisy features*. Equation numbers are theirs.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("jepa_dyn") is None:
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "jepa_dyn[all]"])

import jax.numpy as jnp
import numpy as np

import jepa_dyn

jepa_dyn.enable_x64()  # learning times span many decades
FAST = os.environ.get("JEPA_DYN_FAST") == "1"  # a quick run, for testing

# %% [markdown]
# ## Two objectives, one equation
#
# In a deep linear encoder every feature of the data learns on its own. The data enter through two numbers per feature:
#
# * $\lambda$, the **covariance** of the feature between the two views: how much signal there is;
# * $\rho = \lambda / \sigma^2$, the **regression coefficient**: how predictable the feature is; noise lowers it.
#
# With $L$ layers, the amplitude $w$ of a feature follows
#
# $$\text{JEPA:}\quad \dot w = \lambda\, w^{3-1/L} - \frac{\lambda}{\rho} w^3 \quad (7) \qquad\qquad
# \text{MAE:}\quad \dot w = \lambda\, w^{2-1/L} - \frac{\lambda}{\rho} w^3 \quad (8)$$
#
# One exponent differs. It decides what is learned first. The **critical time** $t^*$ is when $w$ reaches half of its final
# value; `theory.modes` has it exactly. Let us map it over $(\lambda, \rho)$. `sweep` runs any function over a `Grid` and
# returns a labelled `xarray.Dataset`.

# %%
from matplotlib import pyplot as plt

from jepa_dyn import mode_parameters
from jepa_dyn.plots import heat_map
from jepa_dyn.sweep import Grid, axis, sweep
from jepa_dyn.theory import modes

DEPTH, EPS = 5.0, 1e-3  # encoder layers, amplitude at initialisation


def times(lam, rho):
    args = mode_parameters(lam, rho, DEPTH)
    return {objective: modes.critical_time(objective, EPS, args) for objective in ("jepa", "mae")}


n = 24 if FAST else 48
grid = Grid(
    lam=axis(np.linspace(0.5, 1.0, n), description="covariance λ"),
    rho=axis(np.linspace(0.5, 1.0, n), description="regression coefficient ρ"),
)
found = sweep(times, grid, progress=False)

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), dpi=80, layout="constrained")
for ax, objective in zip(axes, ("jepa", "mae"), strict=True):
    shortest = found[objective] / found[objective].min()
    shortest.attrs["long_name"] = "critical time / the shortest"
    heat_map(shortest, x="lam", y="rho", contours=[1.1, 1.25, 1.5, 1.75, 2.25, 3], log_colour=False, ax=ax)
    ax.set_title(f"{objective.upper()}, L = {DEPTH:g}", loc="left")

# %% [markdown]
# Features on one contour are learned at the same time. MAE's contours are vertical: it looks at $\lambda$ **only**. JEPA's
# are tilted: of two features with the same $\lambda$ it learns the more predictable one first, and it may prefer a
# predictable feature with *less* covariance. That is the implicit bias of JEPA against noisy features.
#
# ## From photographs to a prediction
#
# What are $\lambda$ and $\rho$ in real images? Take two nearby crops of the same photograph, many times, and compute their
# second moments. Their eigenvectors are the features. (`load_images("my_folder")` takes images of your own.)

# %%
from jepa_dyn.moments import load_images
from jepa_dyn.predict import plot_prediction, predict_from_images, report

images = load_images()
prediction = predict_from_images(
    images,
    views="crop",
    num_pairs=5_000 if FAST else 50_000,
    depths=(1, 2, 3, 5),
    eps=EPS,
    source="scikit-learn's two photographs",
)
figure = plot_prediction(prediction)
figure.set_dpi(72)  # keeps the notebook small

# %% [markdown]
# Both start with the mean brightness and go on with slow gradients. With depth the orders part: where a frame is orange,
# JEPA and MAE learn different features at that place. JEPA also keeps weak, unpredictable features *small* (bottom left):
# its final strength is $\rho^L$, MAE's is $\rho^{L/(L+1)}$ (9).
#
# The same in numbers, for the shallowest and the deepest encoder. Mind the line on the *diagonalisability defect* and the
# column *leak*: the theory assumes that both moments share their eigenvectors, and these say how far that is from true.

# %%
print(report(prediction.sel(depth=[1, 5])))

# %% [markdown]
# ## The order turns with depth
#
# How many pairs of features do JEPA and MAE learn in opposite orders? Deep JEPA encoders barely learn weak features, so let
# us compare the features that both objectives learn at every depth.

# %%
from jepa_dyn.predict import swapped_pairs

common = set(prediction.feature.values[(prediction.outcome == 0).all(["objective", "depth"])].tolist())
print(f"features learned at every depth: {sorted(common)}")
for depth in prediction.depth.values:
    pairs = [f"{i} before {j}" for i, j in swapped_pairs(prediction, depth) if {i, j} <= common]
    print(f"depth {depth:g}: JEPA, unlike MAE, learns {', '.join(pairs) or 'nothing in another order'}")

# %% [markdown]
# ## Check: closed form against integration
#
# The prediction used the exact solution of (7). The package never trusts one route: `flows` holds the equations, `solve`
# integrates them, and neither knows the closed forms. Let us integrate the strongest features at depth 5 and compare.

# %%
from jepa_dyn.flows import modes as flows
from jepa_dyn.plots import learning_curves
from jepa_dyn.solve.ensemble import ensemble

first = prediction.sel(objective="jepa", depth=5).isel(feature=slice(0, 6))
lanes = mode_parameters(first.lam.values, variance=first.variance.values, depth=5.0).broadcast()
integrated = ensemble(flows.jepa, jnp.full(6, EPS), lanes, first.time.values)
print(integrated)
error = np.abs(np.asarray(integrated.ys) - first.w.values).max()
print(f"\nlargest difference between integration and closed form: {error:.1e}")
assert error < 1e-3

figure, ax = learning_curves(first.w, colour="rho", x="time", log_x=True)
ax.plot(first.time.values, np.asarray(integrated.ys).T, "k", linewidth=0.9, linestyle=(0, (1, 2.5)))
ax.set_title("JEPA, L = 5: closed form (colour), integration (dots)", loc="left", fontsize=10)

# %% [markdown]
# ## What this rests on
#
# The equations are exact for deep *linear* encoders from a small, balanced and aligned initialisation. The preference for
# $\rho$ is visible only where $\epsilon^{1/L}/\rho$ lies between about 0.2 and 0.8; as $\epsilon \to 0$ at fixed depth it
# fades, because every critical time is then ruled by $\lambda$.
#
# Next: `jepa-dyn predict my_photos --out prediction` does all this from the command line, and
# `jepa-dyn reproduce littwin2024.fig2 --out fig2` recomputes the paper's figure and checks its claims.
