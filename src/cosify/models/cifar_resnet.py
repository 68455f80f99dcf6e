"""ResNets for small images, registered with timm: a 3x3 stem of stride 1, no max-pooling, any width.

They are subclasses of timm's `ResNet`, because no argument of it gives a stem of stride 1 (timm 1.0.31).  A checkpoint
of them therefore opens where cosify is imported; one that has to open in stock timm needs a stock architecture.
"""

from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from cosify.errors import InputError

__all__ = ["CifarResNet", "resnet18_cifar", "resnet34_cifar"]

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)
BASE_CHANNELS = (64, 128, 256, 512)


class CifarResNet(ResNet):
    """ResNet of basic blocks whose first stage works at full resolution.

    He et al., CVPR 2016, with the stem that is common for 32 px images: one 3x3 convolution of stride 1.

    Args:
        layers: number of blocks in each of the four stages.
        num_classes: C; 0 for features alone.
        in_chans: channels of the images.
        width: multiplies the channels 64, 128, 256, 512 of the stages; d = 512 * width.
        neck: normalise the pooled features over the batch, as face models do.  Behind a ReLU alone, features point in
            similar directions, and with a margin they hardly spread over the sphere.
        **kwargs: as in `timm.models.resnet.ResNet`.

    Raises:
        ValueError: if `width` does not give whole numbers of channels, or an argument of the stem is given.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        num_classes: int = 1000,
        in_chans: int = 3,
        width: float = 1.0,
        neck: bool = False,
        **kwargs: Any,
    ) -> None:
        channels = scaled_channels(width)
        fixed = sorted({"block", "channels", "stem_type", "stem_width", "replace_stem_pool", "aa_layer"} & set(kwargs))
        if fixed:
            raise InputError(
                f"{fixed} cannot be set for a CIFAR ResNet, expected width alone; use timm's resnet18 instead"
            )
        # A deep stem is the only one whose width timm lets one choose (twice stem_width); it is replaced below.
        super().__init__(
            BasicBlock,
            layers,
            num_classes=num_classes,
            in_chans=in_chans,
            channels=channels,
            stem_type="deep",
            stem_width=channels[0] // 2,
            **kwargs,
        )
        place: dict[str, Any] = {"device": kwargs.get("device"), "dtype": kwargs.get("dtype")}
        self.conv1 = nn.Conv2d(in_chans, channels[0], kernel_size=3, stride=1, padding=1, bias=False, **place)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
        self.neck = nn.BatchNorm1d(channels[-1], **place) if neck else nn.Identity()
        for info in self.feature_info:
            # timm counts a stem of stride 2 before `act1` and one of 4 before the stages.
            info["reduction"] //= 2 if info["module"] == "act1" else 4

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits, or the pooled features that the classifier is given, from feature maps."""
        x = self.neck(self.global_pool(x))
        if self.drop_rate:
            x = F.dropout(x, float(self.drop_rate), self.training)
        return x if pre_logits else self.fc(x)


def scaled_channels(width: float) -> tuple[int, ...]:
    """Return the channels of the four stages.

    Args:
        width: factor on 64, 128, 256, 512.

    Raises:
        ValueError: if 64 * width is not an even whole number of at least 2.
    """
    base = BASE_CHANNELS[0] * width
    if not (base >= 2 and base == int(base) and int(base) % 2 == 0):
        raise InputError(
            f"width is {width}, which gives {base:g} channels in the first stage, expected an even whole number from 2"
            " on; use a multiple of 1/32, such as 0.25"
        )
    return tuple(int(channels * width) for channels in BASE_CHANNELS)


CFG: dict[str, Any] = {
    "url": "",
    "num_classes": 100,
    "input_size": (3, 32, 32),
    "pool_size": (4, 4),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": CIFAR_MEAN,
    "std": CIFAR_STD,
    "first_conv": "conv1",
    "classifier": "fc",
    "license": "apache-2.0",
}
default_cfgs = generate_default_cfgs({"resnet18_cifar.untrained": CFG, "resnet34_cifar.untrained": CFG})


def _create(variant: str, pretrained: bool, **kwargs: Any) -> CifarResNet:
    model: CifarResNet = build_model_with_cfg(CifarResNet, variant, pretrained, **kwargs)
    return model


@register_model  # type: ignore[untyped-decorator]  # timm ships no types
def resnet18_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Build an 18-layer `CifarResNet`: 11.2 M parameters at width 1 and 100 classes, 0.7 M at width 0.25."""
    return _create("resnet18_cifar", pretrained, **{"layers": (2, 2, 2, 2), **kwargs})


@register_model  # type: ignore[untyped-decorator]  # timm ships no types
def resnet34_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Build a 34-layer `CifarResNet`: 21.3 M parameters at width 1 and 100 classes, 1.3 M at width 0.25."""
    return _create("resnet34_cifar", pretrained, **{"layers": (3, 4, 6, 3), **kwargs})
