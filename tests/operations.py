"""Counts the operations of a traced program's convolutions and products, times the iterations of loops."""

from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters import partial_eval


def operations(function: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of a call; what its result does not depend on is left out, as a compiler does."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _of(jaxpr)


def _of(jaxpr) -> float:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'conv_general_dilated':
            kernel = equation.invars[1].aval.shape  # [k k d / groups e]
            total += 2 * equation.outvars[0].aval.size * kernel[0] * kernel[1] * kernel[2]
        elif equation.primitive.name == 'dot_general':
            a, ((contracted, _), _) = equation.invars[0].aval, equation.params['dimension_numbers']
            size = 1
            for i in contracted:
                size *= a.shape[i]
            total += 2 * equation.outvars[0].aval.size * size
        # Forms of the same by platform (one writes depthwise convolutions as plain sums), or a block that may not be
        # there.
        total += max((_of(branch.jaxpr) for branch in equation.params.get('branches', ())), default=0)
        for name in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):
            if name in equation.params:
                inner = equation.params[name]
                total += _of(getattr(inner, 'jaxpr', inner)) * equation.params.get('length', 1)
    return float(total)
