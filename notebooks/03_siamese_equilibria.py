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
# # Where stop gradient and EMA end: basins, phase portraits, bifurcations, and the equilibria that Proposition 4.10 forgets
#
# Stop gradient (SG) and the moving-average target (EMA) follow no gradient of an objective, yet they arrive. Where? For a linear
# siamese network, encoder $A$, predictor $B$, target $C$, weight decay $\lambda$, this can be answered completely: here are **all**
# equilibria, how many directions lead away from each, which of them connect, and which share of random starts each one gets.
#
# Theory: Ponce et al. (2025), *Dual perspectives on non-contrastive self-supervised learning*. Proposition 4.10 there says that
# every equilibrium of full rank is asymptotically stable. With one input there already is a circle of saddles; with two there are
# saddles with one, two and three ways out, and a stable equilibrium that has lost an input.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("jepa_dyn") is None:
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "jepa_dyn[all]"])

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jepa_dyn
from jepa_dyn import equilibria, flows, moments, solve

jepa_dyn.enable_x64()  # saddles at |A|^2 ~ 1e-3, rates ~ 1e-2
FAST = os.environ.get("JEPA_DYN_FAST") == "1"  # a quick run, for testing
plt.rcParams["figure.dpi"] = 64
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def lanes(tree, count):
    """The same arguments for every lane."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *jnp.shape(leaf))), tree)


# %% [markdown]
# ## One input: two circles and the origin
#
# With one input, $\rho = [xx]$, $\tau = [yx]$, and two outputs the encoder is a vector $a$ in the plane. Its equilibria are the
# origin and two circles, of radii $r_{1,2} = (|\tau| \mp \sqrt{\tau^2 - 4 \rho \lambda}) / 2 \rho$. Both circles have full rank;
# the inner one is not stable.

# %%
rho, tau, lam, ema_rate = 3.0, 2.0, 0.1, 0.1


def one_input(weight_decay):
    law = moments.view_moments(np.array([[rho]]), np.array([[tau]]), np.array([[tau**2 / rho + 1]]))
    return flows.siamese_arguments(law, weight_decay=weight_decay, ema_rate=ema_rate)


args = one_input(lam)
r1, r2, _ = (float(value) for value in equilibria.one_feature_roots(rho, tau, lam))
for name, s in (("inner", r1**2), ("outer", r2**2)):
    for target in (False, True):
        state = equilibria.equilibrium_state([[s]], 2, args, target=target)
        print(
            f"{name} circle, |a| = {np.sqrt(s):.4f},", "EMA:" if target else "SG: ", equilibria.stability(state, args)
        )

# %% [markdown]
# Paths from random $a$ and $B$ ($C = A$ at the start). They cross, as this is a projection: the full state has 6 numbers with SG
# and 8 with EMA. A portrait without crossings is on the right, of one output, where the state under SG is $(a, b)$: the black
# line, the stable manifold of the two saddles, parts the basin of the origin from the rest. All of $b < -|a|$ (below the dots)
# belongs to the origin: $a^2 - b^2$ decays as $e^{-2 \lambda t}$ and keeps its sign, so $b$ cannot reach 0 while $a$ does not.

# %%
count, ts = 24, np.concatenate([[0], np.geomspace(0.02, 300, 150)])
rng = np.random.default_rng(2)
a0, b0 = jnp.asarray(rng.normal(size=(count, 2, 1))), jnp.asarray(rng.normal(size=(count, 2, 2)))
figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
for ax, name in zip(axes, ("SG", "EMA"), strict=False):
    y0 = flows.SiameseState(a0, b0, a0 if name == "EMA" else None)
    run = solve.ensemble(flows.siamese, y0, lanes(args, count), ts)
    paths = np.asarray(run.ys.encoder)[..., 0]  # (lane, time, output)
    ends = np.linalg.norm(paths[:, -1], axis=1)
    for path, end in zip(paths, ends, strict=True):
        ax.plot(*path.T, color=BLUE if end > r1 else ORANGE, linewidth=0.9)
        ax.plot(*path[0], ".", color="0.5", markersize=4)
    for radius, style in ((r1, "k--"), (r2, "k-")):
        ax.plot(
            *(radius * np.array([np.cos(angle := np.linspace(0, 2 * np.pi, 200)), np.sin(angle)])), style, linewidth=1.2
        )
    ax.set(aspect="equal", xlabel="$a_1$", ylabel="$a_2$", xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
    ax.set_title(f"{name}: to the outer circle or to 0 (orange)", fontsize=10)
    print(name, "end radii", np.unique(np.round(ends, 3)), "of", count, "paths to the circle:", int((ends > r1).sum()))

# one output, SG: the vector field, and its two saddles followed backwards in time along their stable directions
axis = np.linspace(-1.2, 1.2, 41)
grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
point = flows.SiameseState(jnp.asarray(grid[:, :1, None]), jnp.asarray(grid[:, 1:, None]))
speed = jax.vmap(flows.siamese, (None, 0, None))(0.0, point, args)
u, v = (np.asarray(leaf).reshape(41, 41) for leaf in (speed.encoder, speed.predictor))
axes[2].streamplot(axis, axis, u, v, color="0.6", linewidth=0.7, density=0.6, arrowsize=0.8)


def backwards(t, y, args):
    return jax.tree.map(jnp.negative, flows.siamese(t, y, args))


first = np.array([[r1 + 1e-6, r1 - 1e-6], [r1 - 1e-6, r1 + 1e-6]])  # at one output (1, -1) is stable, rate -2 lambda
y0 = flows.SiameseState(jnp.asarray(first[:, :1, None]), jnp.asarray(first[:, 1:, None]))
run = solve.ensemble(backwards, y0, lanes(args, 2), np.linspace(0, 75, 600))
manifold = np.concatenate([np.asarray(leaf)[..., 0] for leaf in (run.ys.encoder, run.ys.predictor)], -1)
for side in (1, -1):
    for path in manifold:
        axes[2].plot(side * path[:, 0], path[:, 1], "k", linewidth=1.3)
    axes[2].plot(side * r1, r1, "o", color="w", markeredgecolor="k", markersize=6)
    axes[2].plot(side * r2, r2, "o", color="k", markersize=6)
axes[2].plot(0, 0, "o", color="k", markersize=6)
axes[2].plot(axis, -np.abs(axis), "k:", linewidth=1.2)
axes[2].set(aspect="equal", xlabel="encoder $a$", ylabel="predictor $b$", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
axes[2].set_title("one output, SG: ● stable, ○ saddle", fontsize=10)
plt.show()

# %% [markdown]
# ## Basins
#
# Now $B(0)$ is held and $a(0)$ goes over the plane. The basins are no matter of $a$ alone: which starts are lost depends on the
# predictor that one begins with. `by_flow` advances all of them until they stand still.

# %%
points = 11 if FAST else 51
axis = np.linspace(-2, 2, points)
a0 = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2, 1))
predictors = {"turning": [[0.5, -1], [1, 0.5]], "reversing": [[-1, 0.5], [0, -1]]}
a0 = jnp.concatenate([a0, a0])
b0 = jnp.concatenate([lanes(jnp.asarray(one, float), points**2) for one in predictors.values()])
advance = equilibria.by_flow(flows.siamese, 1000.0)
figure, axes = plt.subplots(1, 4, figsize=(12, 3.7), layout="constrained", sharey=True)
for j, name in enumerate(("SG", "EMA")):
    ends = advance(flows.SiameseState(a0, b0, a0 if name == "EMA" else None), lanes(args, len(a0)))
    assert ends.settled.all()
    kept = (np.linalg.norm(ends.y.encoder[:, :, 0], axis=1) > r1).reshape(2, points, points)
    for i, (which, matrix) in enumerate(predictors.items()):
        ax = axes[2 * i + j]
        cmap = plt.matplotlib.colors.ListedColormap([ORANGE, BLUE])
        ax.pcolormesh(axis, axis, kept[i], cmap=cmap, vmin=0, vmax=1, alpha=0.75, rasterized=True)
        ax.set(aspect="equal", xlabel="$a_1(0)$")
        ax.set_title(f"{name}, {which} $B(0)$", fontsize=10)
        print(f"{name}, {which} B(0) = {matrix}: {100 * kept[i].mean():.2f} % of the square end on the outer circle")
axes[0].set_ylabel("$a_2(0)$")
figure.suptitle("Where a start ends: outer circle (blue), origin (orange)\n", fontsize=11)
plt.show()

# %% [markdown]
# With the turning predictor EMA loses none but $a(0) = 0$, SG a disc; with the reversing one both lose nearly the same. Over
# random starts, all entries of $A$ and $B$ standard normal, $C = A$:


# %%
def start_sg(key):
    one, other = jax.random.split(key)
    return flows.siamese_state(jax.random.normal(one, (2, 1)), jax.random.normal(other, (2, 2)))


def start_ema(key):
    y = start_sg(key)
    return flows.siamese_state(y.encoder, y.predictor, y.encoder)


def lost(y, args):
    return jnp.where(jnp.linalg.norm(y.encoder) > r1, 0, 1)


runs = 200 if FAST else 1000
for name, draw in (("SG", start_sg), ("EMA", start_ema)):
    shares = equilibria.basin_shares(
        advance, draw, args, lost, ("outer circle", "origin"), key=jax.random.key(0), runs=runs, progress=False
    )
    print(name, shares)

# %% [markdown]
# ## What weight decay does: a fold
#
# `siamese_branch` follows an equilibrium over a parameter, through its folds, and counts the unstable directions of the whole
# flow on the way. The parameter here is $\log \lambda$, so that no step leads to a negative weight decay. The two circles meet at
# $\lambda = \tau^2 / 4 \rho$; beyond, there is only the origin.


# %%
def with_log_decay(args, value):
    return eqx.tree_at(lambda one: one.weight_decay, args, jnp.exp(value))


def followed(args, s, span, outputs, step):
    """(weight decay, S, unstable directions) along the branch through S, both ways within the span; its folds."""
    begin, span = np.log(float(args.weight_decay)), tuple(np.log(span))
    options = {"along": with_log_decay, "start": begin, "outputs": outputs}
    back, ahead = (equilibria.siamese_branch(args, s, span, step=one, **options) for one in (-step, step))
    decay = np.exp(np.concatenate([back.parameter[::-1], ahead.parameter[1:]]))
    unstable = np.concatenate([back.num_unstable[::-1], ahead.num_unstable[1:]])
    folds = np.exp(np.concatenate([back.fold_parameters, ahead.fold_parameters]))
    return decay, np.concatenate([back.s[::-1], ahead.s[1:]]), unstable, folds


decay, s, unstable, folds = followed(args, [[r2**2]], (0.002, 0.4), 2, 0.004)
radius = np.sqrt(s[:, 0, 0])
wanted = np.array([equilibria.one_feature_roots(rho, tau, one)[:2] for one in decay])
print(f"fold at {folds[0]:.15f}, tau^2 / 4 rho - that: {tau**2 / (4 * rho) - folds[0]:.1e}")
print(
    f"radius against the closed form, largest difference: {np.nanmin(np.abs(wanted - radius[:, None]), axis=1).max():.1e}"
)
figure, ax = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
for count, style in ((0, "-"), (1, "--")):
    ax.plot(decay[unstable == count], radius[unstable == count], "k" + style, label=f"{count} unstable directions")
ax.plot([0, 0.4], [0, 0], "k-")
ax.plot(folds, tau / (2 * rho), "o", color=ORANGE, label=r"fold, $\lambda = \tau^2 / 4 \rho$")
ax.set(xlabel=r"weight decay $\lambda$", ylabel="radius $|a|$ of the equilibria", xlim=(0, 0.4), ylim=(-0.02, 0.7))
ax.set_title("One input: the circles meet and vanish, the origin stays", fontsize=10)
ax.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.4, 0.3))
plt.show()

# %% [markdown]
# ## Two inputs: all equilibria
#
# Ordinary data, nothing fine-tuned. `siamese_equilibria` solves the equation of each rank by following complex paths, so that
# none is missed, and proves each root. An equilibrium is a matrix $S = A^\top A$: $A$ itself can be turned.

# %%
xx, yx = np.array([[1.2, 0.35], [0.35, 0.8]]), np.array([[0.95, 0.3], [-0.2, 0.7]])
args2 = flows.siamese_arguments(moments.view_moments(xx, yx, 2 * np.eye(2)), weight_decay=0.02, ema_rate=ema_rate)
found = equilibria.siamese_equilibria(args2)
assert found.complete
print(found)

# %%
OUTPUTS = 3
every = [*found.all, np.zeros((2, 2))]
labels, indices = [], []
print("rank   trace S   det S      unstable directions: SG  EMA   fastest way out (SG rate)")
for s in every:
    rank = int((np.linalg.eigvalsh(s) > 1e-10).sum())
    both = [
        equilibria.stability(equilibria.equilibrium_state(s, OUTPUTS, args2, target=target), args2)
        for target in (False, True)
    ]
    sg, ema = (one.num_unstable for one in both)
    assert all(one.stable == (one.num_unstable == 0) for one in both)
    way = f"{both[0].transverse[0].real:.4f}" if sg else "none, stable"
    print(f"{rank}      {np.trace(s):.6f}  {max(np.linalg.det(s), 0):.2e}                        {sg}    {ema}   {way}")
    labels.append(f"rank {rank}, {sg} unstable" if sg else f"rank {rank}, stable" if rank else "zero, stable")
    indices.append(sg)

# %% [markdown]
# Four of full rank, with 0, 1, 2 and 3 unstable directions: Proposition 4.10 holds for one of the four. And of rank 1 there is a
# stable one, which the paper does not consider: dimensional collapse that weight decay alone does not undo.
#
# ## Who leads where
#
# Each saddle is left along its unstable directions: a small step in a random direction of its unstable eigenspace, and the flow
# does the rest. In the plane of the two singular values of $A$ the rank-1 equilibria lie on the axis below.


# %%
def unstable_space(y, args, number):
    """Orthonormal basis of the unstable eigenspace of the flow at y, in flattened coordinates."""
    flat, unravel = jax.flatten_util.ravel_pytree(y)

    def field(z):
        return jax.flatten_util.ravel_pytree(flows.siamese(0.0, unravel(z), args))[0]

    values, vectors = np.linalg.eig(np.asarray(jax.jacfwd(field)(flat)))
    vectors = vectors[:, np.argsort(-values.real)[:number]]
    return np.linalg.svd(np.concatenate([vectors.real, vectors.imag], axis=1))[0][:, :number]


rng, tries, ts = np.random.default_rng(0), 40 if FAST else 200, np.concatenate([np.linspace(0, 1500, 301), [4000]])
stable = [i for i, index in enumerate(indices) if index == 0]
saddles = [i for i, index in enumerate(indices) if index > 0]
colours = dict(zip(stable, (BLUE, GREEN, ORANGE), strict=True))
share = np.zeros((len(saddles), len(stable)))


def singular_values(a):
    return np.linalg.svd(a, compute_uv=False)


figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained", sharex=True, sharey=True)
for row, (ax, i) in enumerate(zip(axes, saddles, strict=True)):
    y = equilibria.equilibrium_state(every[i], OUTPUTS, args2)
    basis = unstable_space(y, args2, indices[i])
    moves = rng.normal(size=(tries // 2, indices[i])) @ basis.T
    moves = np.concatenate([moves, -moves])  # both ways
    moves *= 1e-3 / np.linalg.norm(moves, axis=1, keepdims=True)
    flat, unravel = jax.flatten_util.ravel_pytree(y)
    run = solve.ensemble(flows.siamese, jax.vmap(unravel)(flat + moves), lanes(args2, tries), ts)
    encoder = np.asarray(run.ys.encoder)
    gaps = np.array([np.linalg.norm(encoder[:, -1].mT @ encoder[:, -1] - every[k], axis=(1, 2)) for k in stable])
    assert gaps.min(axis=0).max() < 1e-4  # every path has arrived at a stable one
    to = gaps.argmin(axis=0)
    share[row] = np.bincount(to, minlength=len(stable)) / tries
    for lane in rng.permutation(tries)[:28]:
        ax.plot(*singular_values(encoder[lane]).T, color=colours[stable[to[lane]]], linewidth=0.9)
    for k, s in enumerate(every):
        ax.plot(
            *np.sqrt(np.maximum(np.linalg.eigvalsh(s)[::-1], 0)),
            "o" if k in stable else "X" if k == i else "x",
            color=colours.get(k, "k"),
            markersize=9 if k in stable or k == i else 6,
            clip_on=False,
            zorder=3,
        )
    ax.set_yscale("symlog", linthresh=0.003)
    ax.set(ylim=(-0.0004, 1), xlim=(-0.03, 1.25), xlabel=r"$\sigma_1(A)$")
    ax.set_title(f"from {labels[i]}", fontsize=10)
axes[0].set_ylabel(r"$\sigma_2(A)$, linear below 0.003")
figure.suptitle(
    "Ways out of each saddle (bold cross), coloured by the stable equilibrium they reach (dots)", fontsize=11
)
plt.show()
print("share of directions, in %".ljust(26), *(labels[k].ljust(16) for k in stable))
for i, values in zip(saddles, share, strict=True):
    print(labels[i].ljust(26), *(f"{100 * value:.0f}".ljust(16) for value in values))

# %% [markdown]
# ## All of them over weight decay
#
# The same branches over $\lambda$, the number of unstable directions as colour. Circles are not continued but enumerated anew at
# several weight decays: no branch is missing.

# %%
span = (0.0015, 0.3)
shades = (BLUE, GREEN, ORANGE, "#7B2D8B")
figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.9), layout="constrained")
for s in (found.full_rank[0], found.full_rank[1], found.rank_one[0]):  # each comes back as another one after its fold
    rank = int((np.linalg.eigvalsh(s) > 1e-10).sum())
    decay, grams, unstable, folds = followed(args2, s, span, OUTPUTS, 0.005)
    trace = np.trace(grams, axis1=1, axis2=2)
    changes = np.flatnonzero(np.diff(unstable)) + 1
    sequence = [int(part[0]) for part in np.split(unstable, changes)]
    for piece, number in zip(np.split(np.arange(len(decay)), changes), sequence, strict=True):
        piece = np.append(piece, min(piece[-1] + 1, len(decay) - 1))  # on to the next one
        for ax in axes:
            ax.plot(decay[piece], trace[piece], "-" if rank == 2 else ":", color=shades[number], linewidth=2)
    print(f"rank {rank}: fold at weight decay {folds[0]:.8f}, unstable directions along the branch", sequence)
samples = np.geomspace(0.0025, 0.16, 6 if FAST else 12)
again = equilibria.siamese_equilibria(
    jax.vmap(lambda weight_decay: eqx.tree_at(lambda one: one.weight_decay, args2, weight_decay))(jnp.asarray(samples))
)
for value, one in zip(samples, again, strict=True):
    assert one.complete
    for ax in axes:
        ax.plot(
            np.full(len(one.all), value),
            np.trace(one.all, axis1=1, axis2=2),
            "o",
            color="k",
            fillstyle="none",
            markersize=4,
        )
for ax in axes:
    ax.axvline(0.02, color="0.8", linewidth=0.8, zorder=0)
    ax.set(xlabel=r"weight decay $\lambda$", ylabel=r"trace $S = |A|^2$")
axes[0].set(xscale="log", yscale="log", xlim=(0.002, 0.25), ylim=(3e-6, 4))
axes[1].set(xlim=(0.01, 0.03), ylim=(0.7, 1.0), xticks=[0.01, 0.015, 0.02, 0.025, 0.03])
axes[0].set_title("all equilibria but 0; full rank solid, rank 1 dotted", fontsize=10)
axes[1].set_title("closer: the pairs of rank 2 and of rank 1 vanish", fontsize=10)
for number, colour in enumerate(shades):
    axes[0].plot([], [], color=colour, linewidth=2, label=f"{number} unstable")
axes[0].legend(frameon=False, fontsize=9, loc="lower right")
plt.show()

# %% [markdown]
# From below: the stable equilibrium of rank 1 ends at the first fold, the pair of saddles of full rank soon after, the stable one
# of full rank only at nearly seven times that weight decay. Beyond, everything collapses.
#
# ## What random starts get
#
# How large are the basins? Standard normal $A$ and $B$, three outputs, SG; a class is the rank of $A^\top A$ at the end.


# %%
def start(key):
    one, other = jax.random.split(key)
    return flows.siamese_state(jax.random.normal(one, (OUTPUTS, 2)), jax.random.normal(other, (OUTPUTS, OUTPUTS)))


def inputs_lost(y, args):
    return 2 - jnp.sum(jnp.linalg.eigvalsh(y.encoder.T @ y.encoder) > 1e-6)


print(
    equilibria.basin_shares(
        equilibria.by_flow(flows.siamese, 3000.0),
        start,
        args2,
        inputs_lost,
        ("full rank", "rank 1", "zero"),
        key=jax.random.key(0),
        runs=200 if FAST else 2000,
        progress=False,
    )
)

# %% [markdown]
# About one start in six loses an input for good, though an equilibrium that holds both is there and stable.
#
# ## Yours
#
# Change `xx`, `yx` and the weight decay (up to four inputs are enumerated), `OUTPUTS`, the rates; put in the moments of your own
# data (`moments.moments_from_pairs(x, y)`); classify by what you care about; advance by steps of the algorithm instead of the flow
# (`equilibria.by_steps`). `jepa-dyn reproduce ponce2025.proposition_4_10 --out p410` counts the unstable directions over random
# data.
