"""The pipeline for small images: the whole set lies on the training device as uint8, and is augmented there.

Every image is decoded once, before the first step; no DataLoader, no worker, no copy in a step.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from cosify.data.augmentation import Augmentation, augment
from cosify.data.batches import ALONE, Shard, eval_rows, mixed_seed, own_rows, some_rows, training_order
from cosify.data.normalize import Normalization
from cosify.data.preprocessing import Preprocessing
from cosify.data.tensors import ImageSet


class DeviceData:
    """Both splits in memory, as batches.

    Attributes:
        pipeline: `"device"`.
        augmentation: of the training batches.
        normalization: of all batches.
        label_names: name of each class.
        image_shape: channels, height and width.
        train_labels: [N], on the CPU.
        num_train: samples of an epoch.
        num_test: samples of the test split.

    Args:
        train: training split, on the training device.
        test: test split, there too.
        label_names: name of each class.
        augmentation: for training batches.
        normalization: of pixels; None for that of the training images.
        scaling: how images were scaled and cropped.
    """

    pipeline = "device"

    def __init__(
        self,
        train: ImageSet,
        test: ImageSet,
        label_names: tuple[str, ...],
        augmentation: Augmentation,
        normalization: Normalization | None,
        scaling: Preprocessing,
    ) -> None:
        self.train, self.test = train, test
        self.label_names = label_names
        self.augmentation = augmentation
        self.scaling = scaling
        self.normalization = Normalization.of_images(train.images) if normalization is None else normalization
        self.image_shape = tuple(train.images.shape[1:])
        self.train_labels = train.labels.cpu()
        self.num_train, self.num_test = len(train), len(test)
        self._normalize = self.normalization.on(train.images.device)

    def train_batches(
        self, batch_size: int, *, epoch: int, seed: int, shard: Shard, first: int = 0, balance: float = 0.0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's batches of an epoch, from the batch `first` on.

        Args:
            batch_size: B, samples of one rank.
            epoch: from 0 on.
            seed: of the run.
            shard: which part is this rank's.
            first: batches to leave out at the start, for a resumed run.
            balance: as in `training_order`.

        Yields:
            Normalised images [B, channels, H, W] and labels [B].
        """
        order = training_order(self.train_labels, epoch=epoch, seed=seed, balance=balance)
        order = order.to(self.train.labels.device)
        for batch in range(first, len(order) // (batch_size * shard.world_size)):
            rows = own_rows(order, batch, batch_size, shard)
            images = augment(self.train.images[rows], self.augmentation, mixed_seed(seed, epoch, batch), shard)
            yield self._normalize(images), self.train.labels[rows]

    def test_batches(self, batch_size: int, shard: Shard = ALONE) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's part of the test split in order, normalised, [<= B, channels, H, W] and labels."""
        yield from self._in_order(self.test, batch_size, shard)

    def plain_train_batches(
        self, batch_size: int, shard: Shard = ALONE, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's part of the training split in order, without augmentation.

        Args:
            batch_size: largest number of samples in a batch.
            shard: which part is this rank's.
            limit: most samples over all ranks, drawn at random but always the same; None for all.
        """
        data = self.train
        if limit is not None and limit < len(data):
            rows = torch.tensor(some_rows(len(data), limit), device=data.labels.device)
            data = ImageSet(data.images[rows], data.labels[rows])
        yield from self._in_order(data, batch_size, shard)

    def _in_order(self, data: ImageSet, batch_size: int, shard: Shard) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in eval_rows(len(data), batch_size, shard):
            part = slice(rows.start, rows.stop)
            yield self._normalize(data.images[part]), data.labels[part]
