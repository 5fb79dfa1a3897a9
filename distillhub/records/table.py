"""How figures are named and written wherever a person reads them."""

from collections.abc import Mapping

GAINS: Mapping[str, str] = {
    "gain_images_soft": "distilled - random, soft labels",
    "gain_images_hard": "distilled - random, hard labels",
    "gain_images_soft_online": "distilled - random, labels made online by the teacher",
    "gain_packed_hard": "distilled - mosaics of random, hard labels",
    "gain_packed_soft": "distilled - mosaics of random, soft labels",
    "gain_labels_random": "soft - hard labels, random images",
    "ior": "improvement over random (IOR)",
    "hlr": "short of the real data, hard labels (HLR, lower is better)",
    "recovery": "share of the real data's accuracy",
    "lrs": "label robust score (LRS)",
    "ars": "augmentation robust score (ARS)",
}
"""What each composed figure is, in the order of the table."""


def points(value: float, *, signed: bool = False) -> str:
    """A fraction times 100 with one decimal; never `-0.0`.

    Args:
        value: A fraction, or a difference of fractions.
        signed: Whether to write a plus sign.
    """
    rounded = round(100 * value, 1) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{rounded:+.1f}" if signed and rounded else f"{rounded:.1f}"
