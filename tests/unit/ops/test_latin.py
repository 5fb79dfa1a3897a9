"""Latin hypercubes of normal noise."""

import pytest
import torch

from distillhub.ops.latin import jittered_strata, lattice, start_noise


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_dsco_check_12_every_coordinate_of_the_lattice_is_a_permutation_of_the_quantiles():
    found = lattice(7, (3, 4, 4), generator())

    quantiles = torch.special.ndtri((torch.arange(7.0) + 0.5) / 7)
    assert torch.allclose(found.sort(dim=0).values, quantiles.view(7, 1, 1, 1).expand_as(found))
    first = found[:, 0, 0, 0].argsort()
    assert any(not torch.equal(found[:, 0, 0, j].argsort(), first) for j in range(1, 4))


def test_dsco_check_12_a_lattice_of_one_sample_is_refused():
    with pytest.raises(ValueError, match="0 everywhere"):
        lattice(1, (2, 2), generator())


@pytest.mark.parametrize(("n", "moment"), [(2, 0.455), (5, 0.767), (10, 0.880), (100, 0.987)])
def test_the_second_moment_is_the_published_one(n, moment):
    # dsco.md, section 3
    assert lattice(n, (4, 4), generator()).square().mean().item() == pytest.approx(moment, abs=1e-3)


def test_auto_is_gaussian_below_five_samples_and_the_lattice_from_there():
    few, enough = (start_noise("auto", n, (2, 2), generator()) for n in (4, 5))

    assert torch.equal(few, torch.randn((4, 2, 2), generator=generator()))
    assert torch.equal(enough, lattice(5, (2, 2), generator()))


@pytest.mark.parametrize("copies", [1, 5])
def test_dsco_check_12_each_copy_lies_in_a_stratum_of_its_own(copies):
    found = jittered_strata(copies, 4, (2, 3, 3), generator())

    assert found.shape == (copies, 4, 2, 3, 3)
    strata = (torch.special.ndtr(found.double()) * copies).floor().sort(dim=0).values
    assert torch.equal(strata, torch.arange(copies).double().view(-1, 1, 1, 1, 1).expand_as(found))


def test_single_values_of_the_strata_are_normal_and_their_order_is_random():
    found = jittered_strata(5, 2000, (2, 2), generator())

    assert found.mean(dim=1).abs().max() < 0.1  # of each copy and coordinate: 2000 values
    assert (found.std(dim=1) - 1).abs().max() < 0.1
