"""Prediction of hidden blocks from a visible context by small vision transformers, as in I-JEPA.

    t = tokens of a moving average that sees the whole image, normalised;   s = tokens of the context, of the visible patches alone
    the predictor makes a token for every patch of block k from s and its place;   loss over k of (prediction, t in block k)

Source: Assran 2023, section 3; note on collapse, section 5.1.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jepa_dyn._checks import require_choice, require_count
from jepa_dyn.training.joint_embedding import Memory, Outcome, Target, loss_kind
from jepa_dyn.training.layers import AttentionBlock, sine_positions
from jepa_dyn.training.view_pipelines import require_whole_patches

MASKED_TARGETS = ("ema", "stop_gradient", "online")


class VisionTransformer(eqx.Module):
    """Tokens of the patches of an image, sine positions, attention blocks, a last norm. Build it with `vision_transformer`."""

    embed: eqx.nn.Linear
    blocks: tuple[AttentionBlock, ...]
    norm: eqx.nn.LayerNorm
    shape: tuple[int, int, int] = eqx.field(static=True)
    patch_size: int = eqx.field(static=True)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.shape[0] // self.patch_size, self.shape[1] // self.patch_size

    @property
    def width(self) -> int:
        return self.embed.out_features  # pyright: ignore

    def tokens(self, x: Float[Array, " m"], visible: Bool[Array, " T"] | None = None) -> Float[Array, "T w"]:
        """One token per patch, row by row; where some are not visible, no other depends on them."""
        return self._layers(x, visible)[1]

    def __call__(self, x: Float[Array, " m"]) -> Float[Array, " w"]:
        """The mean token of the whole image."""
        return jnp.mean(self.tokens(x), axis=0)

    def hidden_layers(self, x: Float[Array, " m"], statistics: Any = None) -> dict[str, Array]:
        """The mean token after every block."""
        return {name: jnp.mean(tokens, axis=0) for name, tokens in self._layers(x, None)[0].items()}

    def _layers(self, x: Array, visible: Array | None) -> tuple[dict[str, Array], Array]:
        (rows, columns), p = self.grid, self.patch_size
        image = x.reshape(rows, p, columns, p, self.shape[2]).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
        tokens = jax.vmap(self.embed)(image) + sine_positions(rows, columns, self.width).astype(x.dtype)
        found = {}
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, visible)
            found[f"block_{number}"] = tokens
        return found, jax.vmap(self.norm)(tokens)


def vision_transformer(
    key: Array, shape: tuple[int, int, int], *, patch_size: int = 4, width: int = 64, depth: int = 3, heads: int = 4
) -> VisionTransformer:
    """A small vision transformer without class token.

    Args:
        shape: (height, width, channels) of a view, flattened in this order.
        patch_size: side of the square patches, divides height and width.
        width: of a token, a multiple of 4 and of `heads`. depth: attention blocks.

    Raises:
        ValueError: sizes that are not whole numbers >= 1 or do not divide.
    """
    for name, size in (
        ("shape", shape),
        ("patch_size", patch_size),
        ("width", width),
        ("depth", depth),
        ("heads", heads),
    ):
        require_count(name, size)
    require_whole_patches(shape, patch_size)
    _require_width("width", width, heads)
    first, *others = jax.random.split(key, depth + 1)
    embed = eqx.nn.Linear(patch_size**2 * shape[2], width, key=first)
    blocks = tuple(AttentionBlock(own, width, heads) for own in others)
    return VisionTransformer(embed, blocks, eqx.nn.LayerNorm(width), shape, patch_size)


class BlockPredictor(eqx.Module):
    """A narrow transformer that makes the tokens of hidden patches from those of the context. Build it with `block_predictor`."""

    embed: eqx.nn.Linear
    mask_token: Float[Array, " w"]
    blocks: tuple[AttentionBlock, ...]
    norm: eqx.nn.LayerNorm
    readout: eqx.nn.Linear
    grid: tuple[int, int] = eqx.field(static=True)

    def __call__(
        self, tokens: Float[Array, "T w"], visible: Bool[Array, " T"], block: Int[Array, " t"]
    ) -> Float[Array, "t w"]:
        """The tokens of the patches of one block."""
        positions = sine_positions(*self.grid, len(self.mask_token)).astype(tokens.dtype)
        known = jax.vmap(self.embed)(tokens) + positions
        both = jnp.concatenate([known, self.mask_token + positions[block]])
        seen = jnp.concatenate([visible, jnp.ones(len(block), bool)])
        for layer in self.blocks:
            both = layer(both, seen)
        return jax.vmap(self.readout)(jax.vmap(self.norm)(both[len(tokens) :]))


def block_predictor(
    key: Array, encoder: VisionTransformer, *, width: int = 32, depth: int = 2, heads: int = 4
) -> BlockPredictor:
    """The predictor of I-JEPA for an encoder: a transformer of `depth` blocks and tokens of `width` numbers.

    Raises:
        ValueError: sizes that are not whole numbers >= 1, a width that is no multiple of 4 and of `heads`.
    """
    for name, size in (("width", width), ("depth", depth), ("heads", heads)):
        require_count(name, size)
    _require_width("width", width, heads)
    first, last, token, *others = jax.random.split(key, depth + 3)
    return BlockPredictor(
        eqx.nn.Linear(encoder.width, width, key=first),
        0.02 * jax.random.normal(token, (width,)),
        tuple(AttentionBlock(own, width, heads) for own in others),
        eqx.nn.LayerNorm(width),
        eqx.nn.Linear(width, encoder.width, key=last),
        encoder.grid,
    )


def _require_width(name: str, width: int, heads: int) -> None:
    if width % 4 or width % heads:
        raise ValueError(f"Argument `{name}` must be a multiple of 4 and of the {heads} heads, but is {width}.")


class MaskedPrediction(eqx.Module):
    """A block-masked JEPA: encoder, predictor, target; trained on the views of `BlockMasks`.

    - `target`: "ema": tokens of a moving average of the encoder; "stop_gradient", "online": of the encoder itself.
    - `normalised`: whether each token of the target is brought to mean 0 and variance 1, as in I-JEPA's programme.

    The embeddings whose spectra are logged are the mean token of the visible context and that of the whole image. A loss of
    "scales" (`losses.jepa_loss`) gets K arrays (n, t_k, width), any other all their rows as two arrays.
    """

    encoder: VisionTransformer
    predictor: BlockPredictor
    target: str = eqx.field(static=True, default="ema")
    normalised: bool = eqx.field(static=True, default=True)

    def __post_init__(self):
        require_choice("target", self.target, MASKED_TARGETS)

    def moving_part(self) -> Any:
        """The part whose moving average is the target; None where there is none."""
        return self.encoder if self.target == "ema" else None

    def representation(self, x: Array, statistics: Any) -> Array:
        """What a probe reads out: the mean token of one whole image."""
        return self.encoder(x)

    def hidden_layers(self, x: Array, statistics: Any) -> dict[str, Array]:
        """The mean token after every block, for one whole image."""
        return self.encoder.hidden_layers(x)

    def objective(
        self, loss: Any, statistics: Any, target: Target | None, memory: Memory, views: tuple[Any, ...]
    ) -> tuple[Array, Outcome]:
        """The loss of a batch of views, and what it leaves behind."""
        x, visible, blocks = views
        tokens = jax.vmap(self.encoder.tokens)(x, visible)
        whole = jax.vmap(self.encoder.tokens)(x)
        goals = whole if target is None else jax.vmap(target.network.tokens)(x)
        goals = goals if self.target == "online" else jax.lax.stop_gradient(goals)
        goals = _normalised(goals) if self.normalised else goals
        predictions = tuple(jax.vmap(self.predictor)(tokens, visible, block) for block in blocks)
        wanted = tuple(jax.vmap(lambda own, places: own[places])(goals, block) for block in blocks)
        if loss_kind(loss) == "scales":
            value = loss(predictions, wanted)
        else:
            value = loss(_rows(predictions), _rows(wanted))
        count = jnp.maximum(jnp.sum(visible, axis=1, keepdims=True), 1)
        context = jnp.sum(tokens * visible[..., None], axis=1) / count
        statistics_of_target = None if target is None else target.statistics
        return value, Outcome((context, jnp.mean(whole, axis=1)), statistics, statistics_of_target, memory)


def _rows(arrays: tuple[Array, ...]) -> Array:
    return jnp.concatenate([array.reshape(-1, array.shape[-1]) for array in arrays])


def _normalised(tokens: Array) -> Array:
    centred = tokens - jnp.mean(tokens, axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
