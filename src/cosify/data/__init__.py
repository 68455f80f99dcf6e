"""Data sets as tensors on the training device, and batches of them."""

from cosify.data.augment import Augmentation, augmenter, random_crop, random_flip
from cosify.data.batches import Shard, epoch_seed, eval_batches, num_train_batches, train_batches
from cosify.data.normalize import Normalization, Normalizer
from cosify.data.sources import BUILT_IN, Splits, load_splits
from cosify.data.tensors import ImageSet, decode_splits

__all__ = [
    "BUILT_IN",
    "Augmentation",
    "ImageSet",
    "Normalization",
    "Normalizer",
    "Shard",
    "Splits",
    "augmenter",
    "decode_splits",
    "epoch_seed",
    "eval_batches",
    "load_splits",
    "num_train_batches",
    "random_crop",
    "random_flip",
    "train_batches",
]
