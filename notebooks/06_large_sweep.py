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
# # A large sweep: where does weight decay collapse a JEPA?
#
# A sweep is a function and a grid. Small ones stay in memory; large ones go to a **store**, a folder that is written block by
# block, that several processes may share, and that survives being killed at any moment. This notebook starts a sweep from a
# configuration, kills it half way, looks at what is there, lets it go on, opens the result as an `xarray.Dataset`, slices it, and
# draws a phase diagram with the exact border over it.
#
# The question: with weight decay $\kappa$ a mode of a deep linear JEPA follows
#
# $$\dot w = \lambda\, w^{3-1/L} - \frac{\lambda}{\rho} w^3 - \kappa w$$
#
# (Littwin et al. 2024, eq. (7), weight decay added). $w = 0$ is stable now: a feature is only learned from a start that is large
# enough. From which one, and at which weight decay is nothing learned at all?

# %%
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

if importlib.util.find_spec("jepa_dyn") is None:
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "jepa_dyn[all]"])

import numpy as np

import jepa_dyn

jepa_dyn.enable_x64()
FAST = os.environ.get("JEPA_DYN_FAST") == "1"  # a quick run, for testing

# %% [markdown]
# ## The configuration
#
# It names what is computed, here the JEPA modes that ship, integrated, and the grid. Your own `module:function` works as well. On a
# cluster the same file is run by an array of jobs (`jepa-dyn slurm collapse.toml --out collapse` prints the script); in Colab put
# the folder on Drive and run the cell again after a disconnection.

# %%
n = 24 if FAST else 160
folder = Path(mkdtemp())
(folder / "collapse.toml").write_text(f"""
function = "jepa"
times = [1e5]

[axes]
depth = [1.0, 2.0, 5.0]
w0 = {{ geomspace = [1e-3, 1.0, {n}], description = "start w(0)" }}
weight_decay = {{ linspace = [0.002, 0.4, {n}], description = "weight decay κ" }}

[constants]
lam = 1.0
rho = 1.0

[run]
chunk_size = {n * n // 8}
""")


def jepa_dyn_command(*words):
    return [sys.executable, "-m", "jepa_dyn.cli", *map(str, words)]


plan = subprocess.run(jepa_dyn_command("plan", folder / "collapse.toml"), capture_output=True, text=True, check=True)
print(plan.stdout)

# %% [markdown]
# ## Killed, and continued
#
# The command runs in a process of its own, which we kill without warning as soon as a few blocks are there.

# %%
from jepa_dyn.sweep import StoreError, open_sweep, status, verify

store = folder / "collapse"
sweep_command = jepa_dyn_command("sweep", folder / "collapse.toml", "--out", store, "--resume", "--no-progress")


def finished_blocks():
    try:
        return status(store).finished_blocks
    except StoreError:  # not made yet
        return 0


process = subprocess.Popen(sweep_command, stdout=subprocess.DEVNULL)
while finished_blocks() < 5 and process.poll() is None:
    time.sleep(0.05)
process.kill()
process.wait()
half = status(store)
print(f"{half.finished_blocks} of {half.blocks} blocks are there, damaged: {len(verify(store))}")

# %% [markdown]
# A store can be opened at any time. Points that are not computed yet are NaN, and the mask `finished` says which they are.

# %%
part = open_sweep(store)
print(f"{float(part.finished.mean()):.0%} finished; mean of what is there: {float(part.w.mean()):.3f}")
subprocess.run(sweep_command, stdout=subprocess.DEVNULL, check=True)
print(
    f"after going on: {float(open_sweep(store).finished.mean()):.0%} finished, failed points: {status(store).failures.failed}"
)

# %% [markdown]
# ## Opened and sliced
#
# The values stay on disk until they are used. Slicing is by label, as always with xarray.

# %%
found = open_sweep(store).squeeze("time", drop=True)
print(found.w.sel(depth=2.0).sel(w0=0.3, weight_decay=[0.05, 0.1, 0.2, 0.3], method="nearest").round(4).values)
print({name: found.sizes[name] for name in found.w.dims})

# %% [markdown]
# ## The phase diagram
#
# $\dot w > 0$ means $\kappa < \lambda w^{2-1/L} - (\lambda / \rho) w^2$: on the dashed line the start stands still, left of it the
# mode grows, elsewhere it shrinks: from above the line only to its upper branch, from below it, or beyond its tip, to 0. The line
# is not fitted. Beyond its tip nothing is learned from any start: at $L = 1$ that is $\kappa = \lambda \rho / 4$, and a deeper
# encoder tolerates less.

# %%
from matplotlib import pyplot as plt

from jepa_dyn.plots import heat_map

figure, axes = plt.subplots(1, 3, figsize=(12.5, 3.6), sharey=True, layout="constrained")
w = np.geomspace(1e-3, 1, 400)
for ax, depth in zip(axes, found.depth.values, strict=True):
    picture = found.w.sel(depth=depth).assign_attrs(long_name="w at the end")
    heat_map(picture, x="weight_decay", y="w0", log_y=True, log_colour=False, ax=ax)
    border = w ** (2 - 1 / depth) - w**2
    ax.plot(border, w, "w--", lw=1.2)
    ax.set_xlim(0.002, 0.4)
    ax.set_title(f"L = {depth:g}, nothing beyond κ = {border.max():.3f}")

# %% [markdown]
# How well do simulation and border agree? A start counts as recruited if it did not die; the exact border tells the same for all
# but those on it.

# %%
power = 2 - 1 / found.depth
# beyond the top of the border, w^(1/L) = 1 - 1/(2L), a start can only shrink to the upper fixed point
start = np.minimum(found.w0, (power / 2) ** found.depth)
agree = ((found.w > 1e-6) == (found.weight_decay < start**power - start**2)).mean(["w0", "weight_decay"])
for depth, share in zip(found.depth.values, agree.values, strict=True):
    print(f"L = {depth:g}: simulation and theory agree on {share:.2%} of the {n * n:,} points")

# %% [markdown]
# ## More points than you want to keep
#
# Of a quarter of a million random draws one rarely wants each. `Reduce` takes statistics over a dimension while the blocks are
# computed: memory and store do not grow with the number of draws. Here: starts drawn evenly in
# their logarithm, Sobol points, and the share that is recruited, for each weight decay and depth, from the exact condition above.

# %%
import jax.numpy as jnp

from jepa_dyn.sweep import Grid, Reduce, between, sweep


def is_recruited(w0, weight_decay, depth):
    power = 2 - 1 / depth
    start = jnp.minimum(
        w0, (power / 2) ** depth
    )  # beyond the top of the border a start can only shrink to the fixed point
    return {"recruited": weight_decay < start**power - start**2}


draws = 2**12 if FAST else 2**18
grid = Grid(depth=found.depth.values, weight_decay=np.linspace(0.0, 0.3, 31)) * Grid.sobol(
    draws, w0=between(1e-4, 1.0, log=True)
)
shares = sweep(is_recruited, grid, reduce=Reduce("draw", recruited=["mean"]), progress=False)
print(f"{len(grid):,} points, {shares.nbytes / 1e3:.1f} kB of results")
figure, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for depth in shares.depth.values:
    ax.plot(shares.weight_decay, shares.recruited_mean.sel(depth=depth), label=f"L = {depth:g}")
ax.set(xlabel="weight decay κ", ylabel="share of starts that are recruited")
_ = ax.legend(frameon=False)
