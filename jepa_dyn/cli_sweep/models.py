"""What a sweep's configuration can name: models that ship, as functions of their parameters, and any function of the user's own.

Parameters without a default must be given. One called `times` is filled from the configuration's times, one called `key` with
the key of the point. Results over the times have the dimension `time`.
"""

import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jepa_dyn import flows
from jepa_dyn.moments import view_moments
from jepa_dyn.parameters import OBJECTIVES, mode_parameters
from jepa_dyn.solve import ensemble, integrate, train
from jepa_dyn.solve.exact import exact
from jepa_dyn.theory import barlow_twins, direct_pred
from jepa_dyn.theory import modes as mode_theory

OWN_PARAMETERS = ("times", "key")


@dataclass(frozen=True)
class Model:
    """A function that can be swept. `batched` and `static` say how its parameters are taken (see `sweep`)."""

    name: str
    call: Callable[..., Mapping[str, Any]]
    batched: bool = False
    static: tuple[str, ...] = ()
    host: bool = False

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Parameters that a grid may have, by name."""
        found = inspect.signature(self.call).parameters
        return {name: one for name, one in found.items() if name not in OWN_PARAMETERS}

    @property
    def required(self) -> list[str]:
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return [
            n for n, one in self.parameters.items() if one.default is inspect.Parameter.empty and one.kind not in kinds
        ]

    @property
    def takes_anything(self) -> bool:
        return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in self.parameters.values())

    def takes(self, name: str) -> bool:
        """Whether the function has this parameter of the program's own: `times` or `key`."""
        return name in inspect.signature(self.call).parameters

    @property
    def title(self) -> str:
        return (inspect.getdoc(self.call) or "").split("\n")[0]


def _modes(lam: Any, rho: Any, depth: Any, weight_decay: Any) -> Any:
    return mode_parameters(lam, rho, depth, weight_decay=weight_decay)


def _integrated(
    objective: Any, lam: Any, rho: Any, depth: Any = 1.0, weight_decay: Any = 0.0, w0: Any = 1e-3, *, times: np.ndarray
) -> dict[str, Any]:
    flow = flows.jepa if objective == "jepa" else flows.mae
    found = ensemble(flow, w0, _modes(lam, rho, depth, weight_decay), times)
    return {"w": ("time", found.ys), "steps": found.steps, "status": found.status}


def _exact(
    objective: Any, lam: Any, rho: Any, depth: Any = 1.0, w0: Any = 1e-3, *, times: np.ndarray
) -> dict[str, Any]:
    found = exact(objective, w0, _modes(lam, rho, depth, 0.0), times)
    return {"w": ("time", found.ys), "status": found.status}


def critical_time(
    lam: Array, rho: Array, depth: Any = 1.0, w0: Any = 1e-3, fraction: Any = 0.5, objective: Any = "jepa"
) -> dict[str, Any]:
    """When a JEPA or MAE mode reaches a fraction of its fixed point, in closed form, and where it ends (Littwin 2024)."""
    args = mode_parameters(lam, rho, depth)
    time = mode_theory.critical_time(objective, w0, args, fraction)
    never = {"long_name": "critical time", "infinite_means": "never learned"}
    return {"critical_time": ((), time, never), "fixed_point": mode_theory.fixed_point(objective, args)}


def barlow_twins_mode(gamma: Array, s0: Any = 1e-3, *, times: np.ndarray) -> dict[str, Any]:
    """Singular value of a linear Barlow Twins mode over time, in closed form (Simon 2023)."""
    return {"s": ("time", barlow_twins.singular_value(jnp.asarray(times), s0, gamma))}


def direct_pred_mode(
    lam0: Array, alpha: Any = 1.0, online: Any = 1.0, cross: Any = 1.0, iso: bool = False, *, times: np.ndarray
) -> dict[str, Any]:
    """Predictor eigenvalue of DirectPred or its IsoLoss under Euclidean losses over time, in closed form (Halvagal 2023)."""
    given = {"alpha": alpha, "online": online, "cross": cross, "iso": iso}
    return {"lam": ("time", direct_pred.predictor_eigenvalue(jnp.asarray(times), lam0, **given))}


def _two_features(variance: Any, covariance: Any, ratio: Any) -> Any:
    """Moments of two independent features, the second `ratio` times as large."""
    sizes = jnp.stack([jnp.asarray(1.0), jnp.asarray(ratio)])
    return view_moments(jnp.diag(variance * sizes), jnp.diag(covariance * sizes))


def siamese(
    key: Array,
    variance: Any = 1.0,
    covariance: Any = 0.8,
    ratio: Any = 0.5,
    weight_decay: Any = 0.02,
    learning_rate: Any = 0.1,
    momentum: Any = 0.0,
    scale: Any = 0.5,
    steps: int = 300,
    width: int = 2,
) -> dict[str, Any]:
    """A linear siamese network on two features, trained by stop gradient, or with a target of that momentum (Ponce 2025)."""
    first, second = jax.random.split(key)
    encoder = scale * jax.random.normal(first, (width, 2)) / np.sqrt(2)
    predictor = scale * jax.random.normal(second, (width, width)) / np.sqrt(width)
    args = flows.siamese_arguments(_two_features(variance, covariance, ratio), weight_decay=weight_decay)
    start = flows.siamese_state(encoder, predictor, encoder)
    run = train(flows.siamese, start, args, [steps], learning_rate=learning_rate, target_momentum=momentum)
    end = run.final
    sizes = jnp.linalg.svd(end.encoder, compute_uv=False)
    return {"singular_values": ("feature", sizes), "collapsed": sizes[0] < 1e-3, "status": run.status}


def deep_linear(
    key: Array,
    variance: Any = 1.0,
    covariance: Any = 0.8,
    ratio: Any = 0.5,
    weight_decay: Any = 0.0,
    eps: Any = 1e-2,
    objective: str = "jepa",
    depth: int = 2,
    *,
    times: np.ndarray,
) -> dict[str, Any]:
    """A deep linear encoder on two features from a small Gaussian start: its singular values over time (Littwin 2024)."""
    mask = flows.layer_mask(depth)
    args = flows.deep_linear_arguments(_two_features(variance, covariance, ratio), mask, weight_decay=weight_decay)
    start = flows.small_gaussian_initialisation(key, mask, 2, eps=eps)
    flow = flows.deep_jepa if objective == "jepa" else flows.deep_mae
    run = integrate(flow, start, args, times, max_steps=4096)
    encoders = jax.vmap(flows.encoder_matrix, (0, None))(run.ys, args)
    return {"singular_values": (("time", "feature"), jnp.linalg.svd(encoders, compute_uv=False)), "status": run.status}


def _named(function: Callable, objective: str, title: str) -> Callable[..., Any]:
    """The function at one objective, with a signature and a title of its own."""
    one: Any = functools.partial(function, objective)
    one.__doc__ = title
    return one


SHIPPED = {
    model.name: model
    for model in (
        Model(
            "jepa", _named(_integrated, "jepa", "JEPA modes w(t), integrated (Littwin 2024, eq. (7))."), batched=True
        ),
        Model("mae", _named(_integrated, "mae", "MAE modes w(t), integrated (Littwin 2024, eq. (8))."), batched=True),
        Model("jepa_exact", _named(_exact, "jepa", "JEPA modes w(t) in closed form (Littwin 2024)."), batched=True),
        Model("mae_exact", _named(_exact, "mae", "MAE modes w(t) in closed form (Littwin 2024)."), batched=True),
        Model("critical_time", critical_time, static=("objective",)),
        Model("barlow_twins", barlow_twins_mode),
        Model("direct_pred", direct_pred_mode, static=("iso",)),
        Model("siamese", siamese, static=("steps", "width")),
        Model("deep_linear", deep_linear, static=("objective", "depth")),
    )
}
CHOICES = {"objective": OBJECTIVES}


def find_model(name: str, folder: Path, batched: bool = False) -> Model:
    """A model that ships, a figure of a paper, or `module:function` (looked for in `folder` as well).

    Raises:
        ValueError: there is none; says which name is close.
    """
    if name in SHIPPED:
        return SHIPPED[name]
    if ":" in name:
        return _users_model(name, folder, batched)
    from jepa_dyn.papers import available

    figures = available()
    if name in figures:
        return Model(name, _figure_function(figures[name]), batched=True, host=True)
    known = [*SHIPPED, *figures]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else "`jepa-dyn plan --help` and `jepa-dyn list` name what there is"
    raise ValueError(
        f"function {name!r} is none of {', '.join(SHIPPED)}, a figure of a paper or module:function; {hint}"
    )


def _users_model(name: str, folder: Path, batched: bool) -> Model:
    module, _, function = name.partition(":")
    for place in (str(Path.cwd()), str(folder)):
        if place not in sys.path:
            sys.path.insert(0, place)
    try:
        found = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise ValueError(
            f"function {name!r}: no module {module!r} here, beside the configuration, or installed"
        ) from None
    except AttributeError:
        raise ValueError(f"function {name!r}: module {module!r} has no {function!r}") from None
    if not isinstance(found, Callable):
        raise ValueError(f"function {name!r} must be a function, but is of type {type(found).__name__}")
    return Model(name, found, batched=batched)


def _figure_function(item: Any) -> Callable[..., dict[str, Any]]:
    """A figure of a paper as a function of its options, one call per point; results that are numbers."""

    def compute(**options: Any) -> dict[str, Any]:
        given = {name: np.asarray(values) for name, values in options.items()}
        count = len(next(iter(given.values())))
        # an option is a number of the type of its default
        points = [{n: type(item.options[n].default)(values[i]) for n, values in given.items()} for i in range(count)]
        datasets = [item.compute(**point) for point in points]
        numeric = [name for name in datasets[0].data_vars if datasets[0][name].dtype.kind in "biuf"]
        return {
            str(name): (tuple(map(str, datasets[0][name].dims)), np.stack([one[name].values for one in datasets]))
            for name in numeric
        }

    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=one.default)
        for name, one in item.options.items()
    ]
    compute.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    compute.__doc__ = item.title
    return compute
