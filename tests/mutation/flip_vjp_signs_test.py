"""The mutation script itself, on a few mutants; `python -m tests.mutation.flip_vjp_signs` runs them all."""

import ast

import pytest

from tests.mutation import flip_vjp_signs


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("composite/reference", 2),
        ("composite/xla", 35),
        ("composite/cpu", 60),
        ("composite/pallas_gpu_vjp", 40),
        ("composite/pallas_tpu_vjp", 40),
        pytest.param("triangle_raster/cpu_surface", 100, marks=pytest.mark.slow),
        ("edge_blend/cpu", 20),
        pytest.param("edge_blend/cpu_pieces", 80, marks=pytest.mark.slow),
        pytest.param("edge_blend/cpu_edges", 35, marks=pytest.mark.slow),
        pytest.param("edge_blend/cpu_lens", 110, marks=pytest.mark.slow),
        pytest.param("hash_encode/cpu", 100, marks=pytest.mark.slow),
        pytest.param("plane_sample/cpu", 40, marks=pytest.mark.slow),
    ],
)
def test_finds_the_terms_and_flips_one_at_a_time(name, least):
    original = ast.unparse(flip_vjp_signs.parsed(name))
    mutants = [ast.unparse(mutant.tree) for mutant in flip_vjp_signs.mutants(name)]
    assert len(mutants) >= least
    assert len(set(mutants)) == len(mutants) and original not in mutants
    for mutant in mutants:
        changed = [pair for pair in zip(original.splitlines(), mutant.splitlines(), strict=True) if pair[0] != pair[1]]
        assert len(changed) == 1, changed


@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("composite/xla", "jnp.stack(behind) / (1 - alpha)"),
        ("composite/reference", "jnp.abs(cotangent).sum((0, 1))"),
        pytest.param("edge_blend/cpu_lens", "6 * p2 * x", marks=pytest.mark.slow),
        pytest.param("plane_sample/cpu", "u * fy + v * fx", marks=pytest.mark.slow),
    ],
)
def test_the_unbroken_pass_is_not_noticed_and_a_flipped_term_is(name, term):
    if name != "composite/reference":  # whose pass the one above has in other words
        assert not flip_vjp_signs.is_noticed(name, flip_vjp_signs.parsed(name))
    (mutant,) = (m for m in flip_vjp_signs.mutants(name) if m.term == term)
    assert flip_vjp_signs.is_noticed(name, mutant.tree)
