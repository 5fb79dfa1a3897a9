"""Distances between the feature means of two sets."""

from torch import Tensor


def squared_mean_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """Squared Euclidean distances between mean embeddings, one per class.

    Args:
        real: Mean embeddings of the real images of K classes, [K, D]; a constant.
        synthetic: Embeddings of n synthetic images of each class, [K, n, D].

    Returns:
        [K], in squared embedding units: summed over D, not averaged; 0 where the means agree.

    Raises:
        ValueError: If classes or widths differ.

    Source: Zhao and Bilen, Dataset Condensation with Distribution Matching (WACV 2023),
    Algorithm 1, with the sum over features of the authors' code.
    """
    if synthetic.ndim != 3 or real.shape != (synthetic.shape[0], synthetic.shape[2]):
        raise ValueError(
            f"means {tuple(real.shape)} do not fit embeddings {tuple(synthetic.shape)}"
        )
    return (synthetic.mean(dim=1) - real.detach()).square().sum(dim=1)
