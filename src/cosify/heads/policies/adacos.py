"""Dynamic AdaCos, a baseline."""

import math

import torch
from torch import Tensor

from cosify.functional import adacos_kappa, kappa_grid
from cosify.heads.policies.policy import Estimate, Geometry, KappaPolicy, mean_of_counted


class AdaCosDynamic(KappaPolicy):
    """Dynamic AdaCos (Zhang et al., CVPR 2019, Eq. 14): log of the mean non-target mass over the median target cosine.

    Deviation: a head has no labels, so the nearest class stands for the target.  The two differ while the model is
    wrong; the median angle is then above pi/4 and clipped in either reading.
    Deviation: not below the smallest candidate of Eq. (14); a mass below 1 has a negative logarithm.
    """

    min_classes = 3
    momentum = 1.0  # the next value is computed from the last one, not from a mean

    def start(self, num_classes: int) -> float:
        return adacos_kappa(num_classes)

    def estimate(self, geometry: Geometry) -> Estimate:
        target, log_mass = geometry.scan.log_masses(geometry.kappa.reshape(1, 1))
        mass = (log_mass[0].exp() - 1) * (geometry.kappa * target).exp()
        mean_mass, counted = mean_of_counted(mass, geometry.counted), geometry.counted
        num_rows: int | Tensor = target.shape[0]
        if counted is not None:  # the others go to the end, where no median is
            num_rows = counted.sum()
            target = target.masked_fill(~counted, 2.0)
            mean_mass = torch.where(num_rows > 0, mean_mass, 0.0)  # without samples any finite kappa serves
        # The lower median, as torch.median, written for any number of rows, none too, and without what ONNX lacks.
        position = torch.arange(target.shape[0], device=target.device)
        median = (target.sort().values * (position == (num_rows - 1) // 2)).sum()
        median_cosine = median.clamp_min(math.cos(math.pi / 4))
        return Estimate((mean_mass.log() / median_cosine).clamp_min(kappa_grid(device=target.device)[0]))
