"""What a set's soft labels say, in a few numbers."""

import torch
from torch import Tensor

from distillhub.records.soft_labels import SoftLabels
from distillhub.spec import Spec

CHUNK = 4096
"""Labels decoded at a time."""


class LabelStatistics(Spec):
    """Means over all entries of all images, in float64 from the decoded labels."""

    teacher_agreement: float
    """Share of labels whose highest stored logit, the first of equal ones, is the image's class."""
    confidence: float
    """Highest probability at temperature 1."""
    entropy_1: float
    """Entropy of the softmax at temperature 1, in nats."""
    entropy_4: float
    """The same at temperature 4."""


def label_statistics(soft: SoftLabels, labels: Tensor) -> LabelStatistics:
    """Statistics of the stored labels against the classes [N]."""
    total = len(soft) * soft.entries
    sums = torch.zeros(4, dtype=torch.float64)
    for start in range(0, total, CHUNK):
        place = torch.arange(start, min(start + CHUNK, total))
        rows = torch.div(place, soft.entries, rounding_mode="floor")
        entries = place % soft.entries
        log_1 = soft.logits(rows, entries, 1.0).double().log_softmax(1)
        log_4 = (soft.logits(rows, entries, 4.0).double() / 4).log_softmax(1)
        best = soft.values[rows, entries].argmax(1, keepdim=True)
        if soft.classes is not None:
            best = soft.classes[rows, entries].long().gather(1, best)
        agrees = best.squeeze(1) == labels[rows]
        sums += torch.stack(
            [
                agrees.double().sum(),
                log_1.amax(1).exp().sum(),
                -(log_1.exp() * log_1).sum(),
                -(log_4.exp() * log_4).sum(),
            ]
        )
    found = (sums / max(total, 1)).tolist()
    return LabelStatistics(
        teacher_agreement=found[0], confidence=found[1], entropy_1=found[2], entropy_4=found[3]
    )
