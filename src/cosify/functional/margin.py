"""Margins on the target cosine: CosFace, ArcFace, or both."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Margin:
    """The margin on the target's cosine in the loss; kappa is estimated without it (Kobayashi, Sec. 3.4.1).

    Attributes:
        cosine: CosFace's margin on the cosine (Wang et al., CVPR 2018), such as 0.35.
        angle: ArcFace's margin on the angle, in radians (Deng et al., CVPR 2019), such as 0.5.
    """

    cosine: float = 0.0
    angle: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cosine) and self.cosine >= 0):
            raise ValueError(f"margin is {self.cosine}, expected a finite number >= 0 on the cosine, such as 0.35")
        if not 0 <= self.angle <= math.pi / 2:  # from 2.3 on the authors' continuation beyond pi would rise again
            raise ValueError(f"angular_margin is {self.angle}, expected radians in [0, pi / 2], such as 0.5")

    def apply(self, target_cosine: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosine with the margin, and its derivative by the cosine, both in the given shape.

        ArcFace: cos(theta + m), with the derivative sin(theta + m) / sin(theta).  Where theta + m would pass pi, it
        goes on as z - m sin(m), as in the authors' code, so that it keeps falling.  At theta = 0 the derivative is
        infinite; it is cut at the smallest angle that the dtype can tell from 0.
        """
        if self.angle == 0.0:
            return target_cosine - self.cosine, torch.ones_like(target_cosine)
        sine = (1 - target_cosine.square()).clamp_min(torch.finfo(target_cosine.dtype).eps).sqrt()
        cos_m, sin_m = math.cos(self.angle), math.sin(self.angle)
        inside = target_cosine > -cos_m  # theta + m < pi
        shifted = torch.where(inside, target_cosine * cos_m - sine * sin_m, target_cosine - self.angle * sin_m)
        slope = torch.where(inside, cos_m + target_cosine * sin_m / sine, 1.0)
        return shifted - self.cosine, slope
