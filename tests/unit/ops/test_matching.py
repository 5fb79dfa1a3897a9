"""The matching loss against numbers worked by hand."""

import pytest
import torch

from distillhub.ops.matching import squared_mean_distance


def test_the_distance_is_summed_over_features_and_not_over_classes() -> None:
    real = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    synthetic = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[3.0, 4.0], [3.0, 4.0]]])

    # means (1, 0) and (3, 4): distances 0 + 4 and 9 + 16
    assert squared_mean_distance(real, synthetic).tolist() == [4.0, 25.0]


def test_the_gradient_is_twice_the_residual_shared_by_the_images_of_a_class() -> None:
    real = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    synthetic = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(0)).double()
    synthetic.requires_grad_()

    squared_mean_distance(real, synthetic).sum().backward()

    expected = 2 / 4 * (synthetic.mean(dim=1) - real).detach()
    torch.testing.assert_close(synthetic.grad, expected.unsqueeze(1).expand(1, 4, 2))


def test_dm_check_08_real_embeddings_get_no_gradient() -> None:
    real = torch.ones(1, 2, requires_grad=True)
    synthetic = torch.zeros(1, 3, 2, requires_grad=True)

    squared_mean_distance(real, synthetic).sum().backward()

    assert real.grad is None


def test_means_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 5\) do not fit embeddings \(2, 3, 4\)"):
        squared_mean_distance(torch.zeros(2, 5), torch.zeros(2, 3, 4))
