"""BACON: IDM with a Bayesian distance.

    L = L_LH + lambda L_TV + (1 - lambda) L_CLIP + ce_weight acc L_CE        lambda = 0.8

L_CLIP is 0 by construction (`ops.bayes.clip_as_published`), and L_LH is mostly a constant: the
metric `loss` hardly moves. The paper's text and the authors' code differ in the likelihood; the
default is the code's, which made the published tables.

Source: Zhou et al., BACON: Bayesian Optimal Condensation Framework for Dataset Distillation
(arXiv 2406.01112), practical loss of the authors' code.
"""

from typing import ClassVar, Literal

from torch import Tensor

from distillhub.methods._base import Paper
from distillhub.methods._distribution import QueueMatching
from distillhub.ops.bayes import Likelihood, Moments, bayesian_loss
from distillhub.ops.matching import squared_mean_distance
from distillhub.spec import Fraction


class BACON(QueueMatching):
    """Bayesian optimal condensation."""

    name: Literal["bacon"] = "bacon"
    version: Literal[1] = 1
    loss: Literal["bayesian", "squared"] = "bayesian"
    """`squared` is IDM's distance, to compare with: then a run is an IDM run, bit for bit."""
    likelihood: Likelihood = "means"
    """`means`: as the authors' code; `samples`: every synthetic feature against every real one, as
    their text says."""
    balance: Fraction = 0.8
    """The authors' lambda, fixed in their code."""

    paper: ClassVar[Paper] = Paper(
        "BACON: Bayesian Optimal Condensation Framework for Dataset Distillation",
        "Zheng Zhou, Hongbo Zhao, Guangliang Cheng, Xiangtai Li, Shuchang Lyu, Wenquan Feng, "
        "Qi Zhao",
        "arXiv 2024",
        arxiv="2406.01112",
        code="https://github.com/zhouzhengqd/BACON",
    )

    @property
    def spread(self) -> bool:
        """Whether the distance asks for the deviation of the real features."""
        return self.loss == "bayesian"

    def distance(self, real: Moments, synthetic: Tensor) -> Tensor:
        """The Bayesian loss per class."""
        if self.loss == "squared":
            return squared_mean_distance(real.mean, synthetic)
        return bayesian_loss(real, synthetic, likelihood=self.likelihood, balance=self.balance)


METHOD = BACON
