"""AdamW as in the paper (appendix B.1.2): global-norm clip 1, decay 0.1 except the resampler, warm-up then constant."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from flamingo_jax.errors import UserError
from flamingo_jax.model.flamingo import Params
from flamingo_jax.ranges import require

# Parameters of a trunk that were measured, not learnt (`model/vision/`). They have no gradient and do not decay.
STATISTICS = ('mean', 'var', 'std')
# Scalars of the contrastive losses, which do not decay, as in CLIP.
SCALARS = (('contrastive', 'log_scale'), ('contrastive', 'bias'))


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The paper gives no betas and no epsilon; these are AdamW's usual ones."""

    learning_rate: float = 1e-4
    warmup_steps: int = 5000
    # Share of the learning rate that is left at the last step; 1 keeps it constant (paper).
    final_fraction: float = 1.0
    weight_decay: float = 0.1
    decay: str = 'cosine'  # How the learning rate falls to `final_fraction`: 'cosine' or 'linear'.
    clip: float = 1.0  # Of the gradient's global norm; 0 is none.
    # Adaptive gradient clipping of the trunk (AGC, Brock et al. 2021), for NFNets, which have no norms; `clip` is then
    # of the other trees. 0 is none (paper, contrastive pretraining: 0.01).
    clip_trunk: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    gate_factor: float = 1.0  # Factor of the learning rate for the tanh gates' alphas. Short runs need faster gates.
    # Factor of the learning rate for each component tree; a tree that is missing has 1.
    tree_factors: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: dict(
            vision=1.0, lm=1.0, lora=1.0, resampler=1.0, xattn=1.0, extra_tokens=1.0, contrastive=1.0
        )
    )
    # Decay of an exponential moving average of the trained parameters, which evaluation and export then read in their
    # place; 0 keeps none. The average begins at the first step, without the initial values' weight.
    average: float = 0.0

    def __post_init__(self):
        """ValueError for a number that is out of its range."""
        where, fields = 'config.optimizer', vars(self)
        require(where, fields, 'above 0', 'learning_rate', 'eps')
        require(where, fields, '0 or more', 'warmup_steps', 'weight_decay', 'clip', 'clip_trunk', 'gate_factor')
        require(where, fields, '0 or more and below 1', 'b1', 'b2', 'average')
        require(where, fields, 'from 0 to 1', 'final_fraction')
        require(f'{where}.tree_factors', self.tree_factors, '0 or more', *self.tree_factors)


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then a decay to `final_fraction` of the learning rate (constant if that is 1).

    ValueError if `decay` is unknown.
    """
    rate, after_warmup = config.learning_rate, max(steps - config.warmup_steps, 1)
    warmup = optax.linear_schedule(0.0, rate, config.warmup_steps)
    if config.decay == 'cosine':
        after = optax.cosine_decay_schedule(rate, after_warmup, alpha=config.final_fraction)
    elif config.decay == 'linear':
        after = optax.linear_schedule(rate, rate * config.final_fraction, after_warmup)
    else:
        raise UserError(f"optimizer.decay must be 'cosine' or 'linear', not {config.decay!r}.")
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer of the trained trees. It has moments for these alone."""

    def decayed(params: Params) -> Params:
        def of(path, _):
            tree, leaf = path[0].key, path[-1].key
            if tree == 'resampler':  # Paper.
                return False
            return leaf not in STATISTICS and (tree, leaf) not in SCALARS

        return jax.tree_util.tree_map_with_path(of, params)

    adamw = optax.adamw(
        schedule(config, steps), config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decayed
    )
    average = [_averaged(config.average)] if config.average else []
    return optax.chain(_clip(config), adamw, _scaled(config), *average)


def _clip(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping by the global norm, or adaptive clipping of the trunk and by the global norm of the rest."""
    by_norm = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    if not config.clip_trunk:
        return by_norm
    adaptive = optax.adaptive_grad_clip(config.clip_trunk)

    def one(update, param):
        return adaptive.update(update, adaptive.init(param), param)[0]

    def leaf(path, update, param):
        # The units that are clipped are the output channels of a kernel, in a stack those of each block.
        stacked = any(is_stacked(part.key) for part in path)
        return (jax.vmap(one) if stacked else one)(update, param)

    def clip(updates: Params, params: Params) -> Params:
        trunk = {name: updates[name] for name in updates if name == 'vision'}
        rest = {name: updates[name] for name in updates if name != 'vision'}
        rest, _ = by_norm.update(rest, by_norm.init(rest))
        return rest | jax.tree_util.tree_map_with_path(leaf, trunk, {name: params[name] for name in trunk})

    return optax.stateless(clip)


def is_stacked(name: str) -> bool:
    """Whether a subtree of a trunk has this name because it is a stack of blocks (`model/vision/`)."""
    return name == 'layers' or name.startswith('rest_')


def _averaged(decay: float) -> optax.GradientTransformation:
    """Changes nothing, and keeps the average of the parameters that the updates give, as `optax.ema` does."""
    ema = optax.ema(decay)

    def update(updates, state, params):
        return updates, ema.update(optax.apply_updates(params, updates), state)[1]

    return optax.GradientTransformation(ema.init, update)


def _scaled(config: OptimizerConfig) -> optax.GradientTransformation:
    def scale(path, update):
        tree, leaf = path[0].key, path[-1].key
        factor = config.tree_factors.get(tree, 1.0) * (config.gate_factor if leaf.startswith('alpha_') else 1.0)
        return update * jnp.asarray(factor, update.dtype)

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))
