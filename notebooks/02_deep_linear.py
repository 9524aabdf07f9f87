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
# # Deep linear nets: the learning order turned around, and where it is not
#
# A JEPA and a masked autoencoder (MAE) of the same deep linear encoder can learn the **same features in opposite order**. Here
# the whole matrix flow is integrated, layers and decoder, and held against the closed form of every feature. Then the
# assumptions are dropped one by one: finite learning rates, minibatches, the sign of the decoder, a generic start, moments
# that do not commute.
#
# Theory: Littwin et al. (2024), *How JEPA avoids noisy features*. Equation numbers are theirs; where the print is wrong we say
# so.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("jepa_dyn") is None:
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "jepa_dyn[all]"])

import jax
import matplotlib.pyplot as plt
import numpy as np

import jepa_dyn
from jepa_dyn import flows, metrics, moments, solve
from jepa_dyn.solve.exact import exact
from jepa_dyn.theory import modes

jepa_dyn.enable_x64()  # learning times span many decades
FAST = os.environ.get("JEPA_DYN_FAST") == "1"  # a quick run, for testing
plt.rcParams["figure.dpi"] = 64

# %% [markdown]
# ## Five features with opposite trends
#
# Feature $i$ has a covariance $\lambda_i$ between the two views (how much signal) and a regression coefficient $\rho_i$ (how
# predictable it is). From the first to the last, $\lambda$ falls and $\rho$ rises. The closed form of the modes says when each
# is half learned: MAE goes by $\lambda$, JEPA by $\rho$. The parameter that decides is $\epsilon^{1/L}/\rho$, $\epsilon$ the
# amplitude at the start: it must be well above 0 for the inversion to be seen, and below $2^{-1/L}$ for a feature to grow.

# %%
lam, rho = np.linspace(1.0, 0.8, 5), np.linspace(0.6, 0.9, 5)
L, eps = 5, 0.01
law = moments.moments_from_spectrum(lam, rho)
parameters = moments.feature_spectrum(law).parameters(depth=L)
for objective in ("jepa", "mae"):
    times = modes.critical_time(objective, eps, parameters)
    print(objective.upper().ljust(5), "critical times (mode clock):", np.round(np.asarray(times), 1))

# %% [markdown]
# ## The matrix flow beside the closed form
#
# `flows.deep_jepa` and `flows.deep_mae` are the gradient flows of all layers and of the decoder (eqs (25)-(28)). On the aligned
# start (assumption 4.1) the length $\|W e_i\|$ follows the scalar mode of its feature exactly, if one minds the clock: the
# modes (7), (8) run in $L$ times the gradient-flow time (eqs (54), (60)), which the paper does not say.

# %%
mask = flows.layer_mask(L)
args = flows.deep_linear_arguments(law, mask)


def held(y, args):
    """||W e_i|| of every feature."""
    return metrics.projections(flows.encoder_matrix(y, args))


def integrated(flow, y0, horizon, num_times=120):
    """||W e_i|| over the gradient-flow time, shape (times, features)."""
    ts = np.linspace(0, horizon, num_times)
    path = solve.integrate(flow, y0, args, ts)
    assert path.status == jepa_dyn.Status.ok
    return ts, np.asarray(jax.vmap(held, (0, None))(path.ys, args))


figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
for ax, (objective, flow) in zip(axes, (("mae", flows.deep_mae), ("jepa", flows.deep_jepa)), strict=True):
    y0 = flows.aligned_initialisation(jax.random.key(0), mask, 5, eps=eps, objective=objective)
    latest = float(np.max(modes.critical_time(objective, eps, parameters)))
    ts, size = integrated(flow, y0, 1.4 * latest / L)
    theory = np.asarray(exact(objective, eps, parameters, L * ts, method="polish").ys).T
    for i in range(5):
        ax.plot(ts, size[:, i], color=plt.cm.viridis(i / 5), label=f"λ = {lam[i]:.2f}, ρ = {rho[i]:.2f}")
        ax.plot(ts, theory[:, i], "k:", linewidth=1)
    ax.set_title(f"{objective.upper()}: flow (colours), closed form (dotted)", fontsize=10)
    ax.set_xlabel("gradient-flow time")
    ax.set_ylabel(r"$\|W e_i\|$")
    print(f"{objective.upper()}: largest difference {np.abs(size - theory).max():.1e}")
axes[0].legend(fontsize=8, frameon=False)
plt.show()

# %% [markdown]
# The last feature (yellow-green) is the last one that the MAE learns and the first one that the JEPA learns.
#
# ## Finite steps and minibatches
#
# Gradient descent with learning rate $\eta$ follows the flow at time step × $\eta$. What the flow conserves exactly, the
# balance of neighbouring layers (lemma B.1; the aligned start is a special one that keeps it), drifts in proportion to $\eta$.
# A minibatch enters a linear net through its second moments alone, so `WishartBatches` draws those instead of the samples: same
# law, a fraction of the work. `train` maps over starts, data, learning rates and seeds; below, over the seeds of eight runs.

# %%
flow_time = 60 if FAST else 240
rates = np.array([0.02, 0.04, 0.08])
y0 = flows.balanced_initialisation(jax.random.key(0), mask, 5, eps=eps)


def balance(y, args):
    return metrics.imbalance_norm(y, args)


drift = []
for rate in rates:
    runs = solve.train(flows.deep_mae, y0, args, [int(flow_time / rate)], learning_rate=rate, observe=balance)
    drift.append(float(runs.ys[-1]))
print("learning rates", rates)
print(
    "imbalance after the same flow time:",
    [f"{d:.2e}" for d in drift],
    "ratios",
    np.round(np.array(drift[1:]) / drift[:-1], 2),
)

# %%
rate, runs_per_rate = 0.05, 8
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
for ax, (objective, flow) in zip(axes, (("mae", flows.deep_mae), ("jepa", flows.deep_jepa)), strict=True):
    y0 = flows.aligned_initialisation(jax.random.key(0), mask, 5, eps=eps, objective=objective)
    latest = float(np.max(modes.critical_time(objective, eps, parameters)))
    total = int((0.2 if FAST else 1.4) * latest / L / rate)
    steps = np.unique(np.linspace(0, total, 100).astype(int))
    runs = solve.train(
        flow,
        y0,
        args,
        steps,
        learning_rate=rate,
        batches=moments.WishartBatches(1000),
        key=jax.random.split(jax.random.key(1), runs_per_rate),
        observe=held,
    )
    size = np.asarray(runs.ys)  # (run, saved step, feature)
    theory = np.asarray(exact(objective, eps, parameters, L * rate * steps, method="polish").ys).T
    for i in range(5):
        ax.plot(steps, size[:, :, i].T, color=plt.cm.viridis(i / 5), linewidth=0.7)
        ax.plot(steps, theory[:, i], "k:", linewidth=1)
    ax.set_title(f"{objective.upper()}: {runs_per_rate} runs of minibatch descent, batch 1000", fontsize=10)
    ax.set_xlabel(f"optimiser steps at learning rate {rate}")
    ax.set_ylabel(r"$\|W e_i\|$")
plt.show()
print(runs)

# %% [markdown]
# ## Where it fails
#
# ### The sign of the decoder
#
# Assumption 4.1(3) asks of the decoder only that it be diagonal in the features. That is too weak: a feature with the sign $-1$
# falls towards 0 and is never learned.

# %%
signs = np.array([1, -1, 1, -1, 1])
y0 = flows.aligned_initialisation(jax.random.key(0), mask, 5, eps=eps, objective="jepa", signs=signs)
ts, size = integrated(flows.deep_jepa, y0, 2 * float(np.max(modes.critical_time("jepa", eps, parameters))) / L)
print("sign ", signs)
print("start", np.round(size[0], 4))
print("end  ", np.round(size[-1], 4))
print("fixed", np.round(np.asarray(modes.fixed_point("jepa", parameters)), 4))

# %% [markdown]
# ### A start that is too small
#
# As $\epsilon \to 0$ at fixed depth the preference of JEPA for $\rho$ vanishes relative to the critical time itself (eq. (17)):
# then $\lambda$ decides for both objectives and the inversion is gone.

# %%
starts = np.geomspace(1e-12, 1e-2, 60)
figure, ax = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
for depth in (2, 3, 5, 8):
    first, last = (jepa_dyn.mode_parameters(lam[i], rho[i], float(depth)) for i in (0, -1))
    shown = starts[starts < 0.1 * float(modes.fixed_point("jepa", first))]
    ratio = modes.critical_time("jepa", shown, last) / modes.critical_time("jepa", shown, first)
    ax.semilogx(shown, ratio, label=f"L = {depth}")
ax.axhline(1, color="0.6", linewidth=0.8)
ax.set_xlabel("amplitude at the start, ε")
ax.set_ylabel("t* of the last feature over that of the first")
ax.set_title("JEPA: inverted below 1", fontsize=10)
ax.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ### Generic starts and moments that do not commute
#
# `papers.littwin2024.phase_diagram` leaves the two assumptions by degrees: it turns $\Sigma_{yx}$ against $\Sigma_{xx}$, and
# mixes the aligned start with a Gaussian one. MAE's times hardly mind the rotation, JEPA's do; neither survives a generic start
# feature by feature, though the trend over many features does (`papers.littwin2024.fig5`).

# %%
from jepa_dyn.papers import littwin2024
from jepa_dyn.papers.table import check_table

if not FAST:
    diagram = littwin2024.phase_diagram()
    littwin2024.plot_phase_diagram(diagram)
    plt.show()
    print(check_table(jepa_dyn.papers.checks(diagram)))

# %% [markdown]
# ## Yours
#
# Change `lam`, `rho`, `L`, `eps`; put in the moments of your own data (`moments.moments_from_pairs(x, y)`); hand `train` any
# optax optimiser (`optimiser=optax.adam`), any source of batches, a stack of starts, learning rates, masks of different depths:
# whatever has one axis more becomes a lane of one compiled program. `jepa-dyn reproduce littwin2024.fig5 --out fig5 --full`
# trains the paper's own nets.
