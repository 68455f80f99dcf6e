"""The face backbones of insightface as timm models: `iresnet18` and `iresnet34`, for aligned faces of 112 px.

Deng et al., "ArcFace", CVPR 2019, Sec. 3.1; the shape is that of insightface's arcface_torch/backbones/iresnet.py.
They are subclasses of timm's `ResNet`; a checkpoint opens where cosify is imported.
"""

from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import ResNet, downsample_conv
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.models.cifar_resnet import CFG, scaled_channels

__all__ = ["IResNet", "iresnet18", "iresnet34"]

REDUCTION = 16  # pixels of the image's side for each place of the last feature map


class IBlock(nn.Module):
    """Batch norm, convolution, batch norm, PReLU, convolution with the stride, batch norm, and the sum, without a ReLU.

    Args:
        in_chans: channels that come in.
        out_chans: channels that go out.
        stride: of the second convolution.
        downsample: what the sum is given of `in_chans` and another size; None for the block's input itself.
        device: where the parameters lie.
        dtype: of the parameters.
        **others: of the blocks of timm's `ResNet`; not used.
    """

    expansion = 1  # as timm's `ResNet` asks

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        *,
        device: Any = None,
        dtype: Any = None,
        **others: Any,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.bn1 = nn.BatchNorm2d(in_chans, **place)
        self.conv1 = nn.Conv2d(in_chans, out_chans, 3, padding=1, bias=False, **place)
        self.bn2 = nn.BatchNorm2d(out_chans, **place)
        self.act = nn.PReLU(out_chans, **place)
        self.conv2 = nn.Conv2d(out_chans, out_chans, 3, stride, padding=1, bias=False, **place)
        self.bn3 = nn.BatchNorm2d(out_chans, **place)
        self.downsample = nn.Identity() if downsample is None else downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map feature maps to feature maps."""
        out = self.act(self.bn2(self.conv1(self.bn1(x))))
        summed: Tensor = self.bn3(self.conv2(out)) + self.downsample(x)
        return summed


class IResNet(ResNet):
    """Four stages, each of which halves the image, and an embedding of d = 512 * width behind a batch norm.

    The embedding is a linear layer of all places of the last feature map, not their mean: in an aligned face each place
    has its meaning.

    Args:
        layers: number of blocks in each of the four stages.
        num_classes: C; 0 for embeddings alone.
        in_chans: channels of the images.
        width: multiplies the channels 64, 128, 256, 512 of the stages, and d.
        img_size: side of the images, or height and width, in pixels.
        **kwargs: `drop_rate`, `device` and `dtype` of `timm.models.resnet.ResNet`.

    Raises:
        ValueError: if `width` does not give whole numbers of channels, or the image is no multiple of 16 pixels.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        num_classes: int = 1000,
        in_chans: int = 3,
        width: float = 1.0,
        img_size: int | tuple[int, int] = 112,
        **kwargs: Any,
    ) -> None:
        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        if min(size) < REDUCTION or any(side % REDUCTION for side in size):
            raise InputError(f"img_size is {img_size}, expected a multiple of {REDUCTION} pixels, such as 112")
        channels = scaled_channels(width)
        # A deep stem is the only one whose width timm lets one choose (twice stem_width); it is replaced below.
        stem: dict[str, Any] = {"stem_type": "deep", "stem_width": channels[0] // 2}
        super().__init__(IBlock, layers, num_classes, in_chans, channels=channels, **stem, **kwargs)
        place: dict[str, Any] = {"device": kwargs.get("device"), "dtype": kwargs.get("dtype")}
        self.conv1 = nn.Conv2d(in_chans, channels[0], 3, padding=1, bias=False, **place)
        self.act1 = nn.PReLU(channels[0], **place)
        self.maxpool = nn.Identity()
        # timm's first stage keeps the size.
        halved = downsample_conv(channels[0], channels[0], kernel_size=1, stride=2, **place)
        self.layer1[0] = IBlock(channels[0], channels[0], 2, halved, **place)
        self.bn2 = nn.BatchNorm2d(channels[-1], **place)
        places = size[0] * size[1] // REDUCTION**2
        self.embedding = nn.Linear(channels[-1] * places, channels[-1], **place)
        self.neck = nn.BatchNorm1d(channels[-1], **place)
        self.neck.weight.requires_grad_(False)  # the head divides by the norm
        for info in self.feature_info:
            info["reduction"] //= 2
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits, or the embedding that the classifier is given, from feature maps."""
        x = F.dropout(self.bn2(x), float(self.drop_rate), self.training)
        x = self.neck(self.embedding(x.flatten(1)))
        return x if pre_logits else self.fc(x)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return patterns of the parameters of stem and stages, as timm has them."""
        return {**super().group_matcher(coarse), "stem": r"^conv1|bn1|act1"}


_CFG = {
    **CFG,
    "num_classes": 1000,
    "input_size": (3, 112, 112),
    "fixed_input_size": True,
    "pool_size": (7, 7),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}
default_cfgs = generate_default_cfgs({"iresnet18.untrained": _CFG, "iresnet34.untrained": _CFG})


def _create(variant: str, pretrained: bool, **kwargs: Any) -> IResNet:
    model: IResNet = build_model_with_cfg(IResNet, variant, pretrained, **kwargs)
    return model


@register_model  # type: ignore[untyped-decorator]  # timm ships no types
def iresnet18(pretrained: bool = False, **kwargs: Any) -> IResNet:
    """Build an 18-layer `IResNet`: 24.0 M parameters without the classifier."""
    return _create("iresnet18", pretrained, **{"layers": (2, 2, 2, 2), **kwargs})


@register_model  # type: ignore[untyped-decorator]  # timm ships no types
def iresnet34(pretrained: bool = False, **kwargs: Any) -> IResNet:
    """Build a 34-layer `IResNet`: 34.1 M parameters without the classifier."""
    return _create("iresnet34", pretrained, **{"layers": (3, 4, 6, 3), **kwargs})
