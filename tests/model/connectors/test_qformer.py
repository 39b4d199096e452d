import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.model.connectors.qformer import QFormerConfig

pytestmark = pytest.mark.usefixtures('quick_compilation')


def test_latents_of_a_q_former_attend_to_one_another_and_then_to_the_features():
    c = QFormerConfig(latents=3, width=16, depth=1, heads=2, head_dim=8, frames=0)
    features = jnp.asarray(np.random.default_rng(0).standard_normal((1, 1, 1, 5, 6), np.float32))
    p = nn.meta.unbox(c.module(12).init(jax.random.key(0), features))['params']
    media = c.module(12).apply({'params': p}, features)

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def attended(x, of, p):
        out = 0
        for h in range(2):
            q, k, v = (a @ np.asarray(p[n]['kernel'])[:, h] for n, a in (('query', x), ('key', of), ('value', of)))
            weights = np.exp(q @ k.T / 8**0.5)
            out += weights / weights.sum(-1, keepdims=True) @ v @ np.asarray(p['out']['kernel'])[h]
        return out

    layer = jax.tree.map(lambda x: np.asarray(x[0]), p['layers'])
    x, of = np.asarray(p['latents']), norm(features[0, 0, 0] @ p['project_in']['kernel'])
    x = x + attended(norm(x), norm(x), layer['self_attention'])
    x = x + attended(norm(x), of, layer['cross_attention'])
    hidden = np.maximum(norm(x) @ layer['ffw']['up']['kernel'], 0) ** 2
    x = x + hidden @ layer['ffw']['down']['kernel']
    np.testing.assert_allclose(media[0, 0], norm(x) @ p['project_out']['kernel'], rtol=1e-4, atol=1e-4)
