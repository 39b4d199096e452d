import json

import jax
import jax.numpy as jnp
import pytest

from flamingo_jax.training.checkpoint import Checkpoints
from flamingo_jax.training.state import TrainState


def test_a_run_from_before_a_field_of_the_config_existed_resumes(config, tmp_path):
    about = dict(model=config.to_json(), trained=['xattn'])
    old = json.loads(json.dumps(about))
    del old['model']['vision']['family'], old['model']['lm']['kv_heads']
    state = TrainState(jnp.int32(1), dict(xattn=jnp.ones(2)), dict(), jax.random.key(0))
    checkpoints = Checkpoints(tmp_path, 1, old)
    checkpoints.save(state, {})
    checkpoints.close()
    # The missing number of heads means today's default, which is not what this model has.
    with pytest.raises(ValueError, match=r'another model.* model.lm.kv_heads \(there 16, here 2\)\. '):
        Checkpoints(tmp_path, 1, about)
    about['model']['lm']['kv_heads'] = 16
    assert Checkpoints(tmp_path, 1, about).restore(state)[0].step == 1
