"""Data sets as batches: resident on the training device, or decoded by worker processes."""

import cosify.lab  # noqa: F401  # one clear error where the extra is missing
from cosify.data.augmentation import Augmentation, augment, random_crop, random_flip
from cosify.data.batches import Shard, eval_rows, mixed_seed, num_train_batches, own_rows, training_order
from cosify.data.decode import standard_image
from cosify.data.device import DeviceData
from cosify.data.encoded_pairs import EncodedPairs, read_pairs, write_pairs
from cosify.data.fingerprint import Fingerprint
from cosify.data.held_out import TEST_SHARE, held_out_mask
from cosify.data.insightface_bin import read_insightface_bin
from cosify.data.long_tail_sets import exponential_sizes, long_tailed
from cosify.data.normalize import Normalization, Normalizer
from cosify.data.open import (
    Data,
    PipelineSettings,
    Survey,
    choose_pipeline,
    eval_transform,
    open_data,
    train_transform,
)
from cosify.data.pair_lists import PairList, read_cfp_pairs, read_csv_pairs, read_lfw_pairs
from cosify.data.picture_pairs import PicturePairs, open_pairs, synthetic_pairs
from cosify.data.preprocessing import Preprocessing, record_preprocessing
from cosify.data.sources import BUILT_IN, Splits, base_and_split, load_images, load_splits, name_of, short_name
from cosify.data.tensors import ImageSet, decode_splits
from cosify.data.unreadable import unreadable_images
from cosify.data.workers import WorkerData
from cosify.settings.transform import Augment, Pipeline, check_transform

__all__ = [
    "BUILT_IN",
    "TEST_SHARE",
    "Augment",
    "Augmentation",
    "Data",
    "DeviceData",
    "EncodedPairs",
    "Fingerprint",
    "ImageSet",
    "Normalization",
    "Normalizer",
    "PairList",
    "PicturePairs",
    "Pipeline",
    "PipelineSettings",
    "Preprocessing",
    "Shard",
    "Splits",
    "Survey",
    "WorkerData",
    "augment",
    "base_and_split",
    "check_transform",
    "choose_pipeline",
    "decode_splits",
    "eval_rows",
    "eval_transform",
    "exponential_sizes",
    "held_out_mask",
    "load_images",
    "load_splits",
    "long_tailed",
    "mixed_seed",
    "name_of",
    "num_train_batches",
    "open_data",
    "open_pairs",
    "own_rows",
    "random_crop",
    "random_flip",
    "read_cfp_pairs",
    "read_csv_pairs",
    "read_insightface_bin",
    "read_lfw_pairs",
    "read_pairs",
    "record_preprocessing",
    "short_name",
    "standard_image",
    "synthetic_pairs",
    "train_transform",
    "training_order",
    "unreadable_images",
    "write_pairs",
]
