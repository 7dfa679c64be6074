"""The mutation script itself, on a few mutants; `python -m tests.mutation.flip_vjp_signs` runs them all."""

import ast

import pytest

from tests.mutation import flip_vjp_signs


@pytest.mark.parametrize(
    ("backend", "least"),
    [("reference", 2), ("xla", 35), ("cpu", 60), ("pallas_gpu_vjp", 40), ("pallas_tpu_vjp", 40)],
)
def test_finds_the_terms_and_flips_one_at_a_time(backend, least):
    original = ast.unparse(ast.parse(flip_vjp_signs._source(backend)))
    mutants = [ast.unparse(mutant.tree) for mutant in flip_vjp_signs.mutants(backend)]
    assert len(mutants) >= least
    assert len(set(mutants)) == len(mutants) and original not in mutants
    for mutant in mutants:
        changed = [pair for pair in zip(original.splitlines(), mutant.splitlines(), strict=True) if pair[0] != pair[1]]
        assert len(changed) == 1, changed


def test_the_unbroken_pass_is_not_noticed_and_a_flipped_term_is():
    assert not flip_vjp_signs.is_noticed("xla", ast.parse(flip_vjp_signs._source("xla")))
    (mutant,) = (m for m in flip_vjp_signs.mutants("xla") if m.term == "jnp.stack(behind) / (1 - alpha)")
    assert flip_vjp_signs.is_noticed("xla", mutant.tree)
    (mutant,) = (m for m in flip_vjp_signs.mutants("reference") if m.term == "jnp.abs(cotangent).sum((0, 1))")
    assert flip_vjp_signs.is_noticed("reference", mutant.tree)
