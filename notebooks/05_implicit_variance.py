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
# # Why nothing collapses: implicit variance regularisation
#
# BYOL and SimSiam pull two views of an image together and yet do not collapse. For linear networks, and a predictor that is a power
# of the correlation matrix of the embeddings, $W_P = C_z^\alpha$, one can see why: the eigenvalues of $C_z$ obey equations of their
# own. Here are those of eight losses (distance × stop gradient × predictor × IsoLoss), theory over simulation; then the question
# that eight single runs leave open: **where does each loss collapse, and where does it keep all modes?**
#
# Theory: Halvagal, Laborieux, Zenke (2023), *Implicit variance regularization in non-contrastive SSL*. Equation numbers are theirs;
# where the print is wrong we say so.

# %%
import importlib.util
import io
import os
import subprocess
import sys

if importlib.util.find_spec("jepa_dyn") is None:
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "jepa_dyn[all]"])

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from IPython.display import Image, display

import jepa_dyn
from jepa_dyn import flows, solve
from jepa_dyn.papers import checks, halvagal2023
from jepa_dyn.papers.halvagal2023_beyond_plots import plot_phase_diagram
from jepa_dyn.papers.halvagal2023_phases import CLASSES, LOSSES, phase_classes
from jepa_dyn.theory.direct_pred import predictor_eigenvalue, recruitment

jepa_dyn.enable_x64()  # eigenvalues over many decades
FAST = os.environ.get("JEPA_DYN_FAST") == "1"  # a quick run, for testing


def show(figure, dpi=80, colours=40):
    """The figure in few colours, which keeps the notebook small."""
    plain, small = io.BytesIO(), io.BytesIO()
    figure.savefig(plain, dpi=dpi)
    plt.close(figure)
    PIL.Image.open(plain).convert("RGB").quantize(colours).save(small, "PNG", optimize=True)
    display(Image(small.getvalue()))


# %% [markdown]
# ## One loss, in closed form
#
# Under the Euclidean loss with stop gradient, every eigenvalue $\lambda$ of the predictor goes its own way (9), under its IsoLoss
# (16) as well:
#
# $$\dot\lambda = 2 \alpha\, \lambda^2 (1 - v \lambda), \qquad \text{IsoLoss: } \dot\lambda = 2 \alpha\, \lambda (1 - v \lambda).$$
#
# $v = 1 + \sigma^2$ where both views carry noise of variance $\sigma^2$ (the paper has $v = 1$: a clean online view). The first is
# the equation of a one-layer JEPA, the second is logistic: a small start escapes after $1 / 2\alpha\lambda_0$, or after
# $\log(1/\lambda_0) / 2\alpha$. So the factor that IsoLoss takes away is what makes small modes wait.

# %%
starts, ts, v = np.array([0.02, 0.05, 0.2, 0.5, 1.5]), np.linspace(0, 30, 121), 1.01
figure, axes = plt.subplots(1, 2, figsize=(9, 2.9), layout="constrained", sharey=True)
for ax, loss in zip(axes, ("euclidean", "euclidean_iso"), strict=True):
    args = flows.representation_mode_arguments(5, loss, online=v, target=v)
    run = solve.integrate(flows.representation_modes, flows.RepresentationModes(np.sqrt(starts)), args, ts)
    exact = predictor_eigenvalue(ts[:, None], starts, online=v, iso=loss.endswith("iso"))
    print(
        f"{loss}: largest distance of the integration from the closed form {np.abs(run.ys.encoder**2 - exact).max():.1e}"
    )
    ax.plot(ts, run.ys.encoder**2, color="#0072B2", linewidth=2.4, alpha=0.7)
    ax.plot(ts, exact, "k--", linewidth=0.9)
    ax.set(title=loss.replace("_", ", "), xlabel="time")
axes[0].set_ylabel("λ; closed form dashed")
show(figure)

# %% [markdown]
# ## Table 1 as eight panels
#
# Networks with 15 inputs and 10 outputs, trained on fresh pairs (colours), and the dynamics of their modes on the population
# (dashed). Under the cosine losses modes are coupled, and the paper approximates the expectations; here they are exact, by a
# quadrature of two dimensions whatever the number of modes.

# %%
table = halvagal2023.table1(**({"count": 2, "outputs": 4, "inputs": 5, "batch_size": 100} if FAST else {}))
show(halvagal2023.plot_table1(table), dpi=66)

# %%
for check in checks(table):
    if not check.expected:
        print(f"The paper: {check.claim}.\n   Here: {check.measured}. {check.note}\n")

# %% [markdown]
# What the paper calls divergence, panel (f), is a *dimensional collapse at constant trace*: a cosine loss does not see how long $W$
# is, so that its gradient is orthogonal to $W$ and the sum of the eigenvalues of $C_z$ stands still. (On drawn pairs steps of
# finite size add a little, the more the fewer modes are left.)
#
# ## The phase diagram
#
# Single runs show single points. The modes are cheap: here are all combinations of the exponent $\alpha$, a moving-average target,
# weight decay $\kappa$ and the spread of the eigenvalues at the start, for six losses ($\alpha = 0$ is no predictor).

# %%
axes = {
    "alpha": (0.0, 0.5, 1.0),
    "ema_rate": (np.inf, 0.3),
    "weight_decay": (0.0, 0.03, 0.1, 0.2, 0.3),
    "anisotropy": (1.0, 3.0, 10.0, 100.0, 1e4),
}
losses = LOSSES
if FAST:
    losses, axes = LOSSES[:3], axes | {"weight_decay": (0.0, 0.3), "anisotropy": (1.0, 1e4)}
found = phase_classes(losses, axes, modes=4, progress=False)
show(plot_phase_diagram(found), dpi=72)

# %%
for loss in losses:
    codes, counts = np.unique(found["class"].sel(loss=loss), return_counts=True)
    print(f"{loss:27}", ", ".join(f"{CLASSES[code]} {n}" for code, n in zip(codes, counts, strict=True)))
threshold, end = (np.asarray(one) for one in recruitment(found.weight_decay.values, online=1.01))
print("\nEuclidean, a mode is recruited from λ =", np.round(threshold, 3), "and ends at", np.round(end, 3))

# %% [markdown]
# * **Euclidean.** Weight decay decides: a mode lives where $\lambda$ starts above the smaller root of $\lambda - v \lambda^2 =
#   \kappa$, and beyond $\kappa = 1/4v$ none does. The staircase in the panels is this root.
# * **IsoLoss.** One threshold for all modes, $\kappa = 1$: it keeps what the plain loss loses.
# * **Cosine.** Weight decay does nothing but change the clock, $t \to (e^{2\kappa t} - 1) / 2\kappa$: it shortens $W$, whose length
#   the loss does not see. What looks like suppressed recruitment in Figure 8 a cannot be had from the population of a linear
#   network.
# * **A moving-average target** moves no point where training rests: it only delays. No class changes.
# * **No stop gradient.** Euclidean: always complete collapse, by noise alone. Cosine: the rank collapses from spread starts; equal
#   eigenvalues stay equal.
#
# ## Does IsoLoss keep its promise on other data?
#
# Theorems 1 and 2 are for i.i.d. Gaussian inputs. With coloured ones every rate has the variance of the mode's input as a factor,
# which no loss of the embeddings can see: IsoLoss no longer equalises rates, but it still removes the factor $\lambda$.

# %%
data = halvagal2023.coloured_inputs(
    **({"size": 3, "batch_size": 64, "num_steps": 200} if FAST else {"batch_size": 512})
)
print("fastest over slowest growth of the modes that start small (closed form in brackets)")
for kind in data.data.values:
    one = data.sel(data=kind)
    text = ", ".join(
        f"{row} {float(one.growth_ratio.sel(row=row)):.3g}"
        + (f" ({float(one.theory_growth_ratio.sel(row=row)):.3g})" if row.startswith("euclidean") else "")
        for row in data.row.values
    )
    print(f"{kind:15} {text}")
print("\nthe last mode arrives so many times as soon with IsoLoss")
for kind in data.data.values:
    ratio = [
        float(data.last_arrival.sel(row=row, data=kind) / data.last_arrival.sel(row=f"{row}_iso", data=kind))
        for row in ("euclidean", "cosine")
    ]
    print(f"{kind:15} Euclidean {ratio[0]:.2g}, cosine {ratio[1]:.2g}")

# %% [markdown]
# ## Yours
#
# Any loss of the family is a `losses.RepresentationLoss(distance, stop_gradient, predictor, iso)`; `flows.representation` trains
# networks with it, on moments or on pairs of your own, linear or ReLU, with a trained predictor, a moving-average target, weight
# decay. From the command line: `jepa-dyn reproduce halvagal2023.fig6 --out relu` (where a ReLU changes the story), and
# `jepa-dyn list`.
