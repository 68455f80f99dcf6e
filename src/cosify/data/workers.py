"""The pipeline for large images, streams and timm's transforms: worker processes decode and transform each image.

The main process decides which images form a batch and hands each worker a request: a row number, or the undecoded row
itself where the set is streamed, with a seed for the random transforms of that one image.  So a transformed image
depends only on seed, epoch and its place in the order: not on the number of workers or ranks, and not on where a
resumed run began.
"""

import atexit
import math
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from cosify.data.batches import ALONE, Shard, eval_rows, mixed_seed, own_rows, some_rows, training_order
from cosify.data.decode import channels_of, undecoded
from cosify.data.normalize import Normalization
from cosify.data.preprocessing import Preprocessing
from cosify.data.sources import SHUFFLE_BUFFER, Splits
from cosify.data.tensors import labels_of, wrong_label
from cosify.data.unreadable import open_or_hint
from cosify.errors import InputError

Request = tuple[Any, int, int]  # row number or undecoded row; place in the order, for messages; seed
SAMPLE_FOR_STATISTICS = 2000  # images whose pixels give mean and deviation
_outliving: WeakSet[BaseProcess] = WeakSet()  # worker processes, which SIGTERM does not end


Sample = tuple[Tensor, int]


class Decoder(Dataset[Sample | InputError]):
    """Answer requests with the transformed pixels, uint8 [channels, H, W], and the label.

    Args:
        split: undecoded rows; None where requests carry them.
        name: of the split, for messages.
        splits: columns and classes.
        transform: from a PIL image to an array or tensor [channels, H, W].
        channels: 1 or 3.
        convert: as of `WorkerData`.
    """

    def __init__(
        self, split: Any, name: str, splits: Splits, transform: Callable[[Any], Any], channels: int, convert: bool
    ) -> None:
        self.split, self.name, self.transform = split, name, transform
        self.image_column, self.label_column = splits.image_column, splits.label_column
        self.num_classes = len(splits.label_names)
        self.mode, self.takes_colour = "L" if channels == 1 else "RGB", convert or channels == 3

    def __getitem__(self, request: Request) -> Sample | InputError:
        """Decode and transform one image; return what is wrong with it, for the main process to raise.

        torch would wrap an error that is raised here into the worker's traceback.
        """
        try:
            return self._sample(request)
        except InputError as error:
            return error

    def _sample(self, request: Request) -> Sample:
        row, place, seed = request
        cells = row if self.split is None else self.split[row]
        image = open_or_hint(cells[self.image_column], place, self.name)
        if channels_of(image) == 3 and not self.takes_colour:
            raise InputError(
                f"image in row {place} of split {self.name!r} is in colour, expected grey as the sample of both splits"
                " that was looked at first; use --model-kwargs in_chans=3 for colour, or in_chans=1 to make all grey"
                " (from Python: Preprocessing.channels)"
            )
        image = image.convert(self.mode)
        label = cells[self.label_column]
        if label is None or not 0 <= label < self.num_classes:
            raise wrong_label(label, place, self.name, self.num_classes)
        with _chance(seed):
            return torch.as_tensor(self.transform(image)), label


def _batch(samples: list[Sample | InputError]) -> Any:
    """Return images and labels of a batch, or the first of its errors."""
    errors = [sample for sample in samples if isinstance(sample, InputError)]
    return errors[0] if errors else default_collate(samples)


@contextmanager
def _chance(seed: int) -> Iterator[None]:
    """Let transforms draw from `seed`, then restore the generators: without workers these are the training's own.

    Otherwise weights that are drawn after the pixels were measured would be the same for every seed of a run.
    """
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # timm's transforms draw from all three
    torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds the accelerators, too
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.default_generator.set_state(before[2])


@dataclass
class _Plan:
    """The requests of one pass, batch by batch; set anew before each."""

    batches: Iterable[Sequence[Request]] = ()

    def __iter__(self) -> Iterator[Sequence[Request]]:
        return iter(self.batches)


class WorkerData:
    """Both splits behind worker processes, as batches.

    Attributes:
        pipeline: `"workers"`.
        augmentation: name of the training transform.
        normalization: of all batches.
        label_names: name of each class.
        image_shape: channels, height and width.
        train_labels: [N], on the CPU; None for a stream.
        num_train: samples of an epoch.
        num_test: samples of the test split; None for a stream.

    Args:
        splits: what to read.
        train_transform: from a PIL image to uint8 [channels, H, W].
        test_transform: the same, without random choices.
        image_shape: channels, height and width that they give.
        augmentation: name of the training transform.
        normalization: of pixels; None for that of (a sample of) the training images.
        num_workers: processes of this rank for each split; 0 to decode in the main process.
        device: where batches go.
        scaling: how the test transform scales and crops.
        convert: whether images in colour become grey where `image_shape` has one channel; an error otherwise.
    """

    pipeline = "workers"

    def __init__(
        self,
        splits: Splits,
        *,
        train_transform: Callable[[Any], Any],
        test_transform: Callable[[Any], Any],
        image_shape: tuple[int, int, int],
        augmentation: str,
        normalization: Normalization | None,
        num_workers: int,
        device: torch.device,
        scaling: Preprocessing,
        convert: bool = False,
    ) -> None:
        self.label_names, self.image_shape, self.augmentation = splits.label_names, image_shape, augmentation
        self.scaling = scaling
        self.num_train, self.num_test = splits.num_train, splits.num_test
        self._splits, self._device, self._test_transform, self._convert = splits, device, test_transform, convert
        self.train_labels = None if splits.streaming else labels_of(splits, "train")
        self._num_workers = num_workers
        self._train = self._loader("train", train_transform, num_workers)
        self._test = self._loader("test", test_transform, num_workers)
        self.normalization = self._measured() if normalization is None else normalization
        self._normalize = self.normalization.on(device)

    def _loader(self, name: str, transform: Callable[[Any], Any], num_workers: int) -> tuple[_Plan, DataLoader[Any]]:
        splits, plan = self._splits, _Plan()
        split = None if splits.streaming else undecoded(splits.split(name), splits.image_column)
        loader: DataLoader[Any] = DataLoader(
            Decoder(split, name, splits, transform, self.image_shape[0], self._convert),
            collate_fn=_batch,
            batch_sampler=plan,  # type: ignore[arg-type]  # it takes any iterable of requests
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_signals_to_main,
            pin_memory=self._device.type == "cuda",
            # torch seeds its workers from the global generator, which the training steps own.
            generator=torch.Generator().manual_seed(0),
        )
        return plan, loader

    def train_batches(
        self, batch_size: int, *, epoch: int, seed: int, shard: Shard, first: int = 0, balance: float = 0.0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's batches of an epoch, from the batch `first` on; as `DeviceData.train_batches`."""
        if self.train_labels is None:
            batches = self._streamed(batch_size, epoch, seed, shard, first)
        else:
            order = training_order(self.train_labels, epoch=epoch, seed=seed, balance=balance)
            batches = (
                [
                    (int(row), int(row), mixed_seed(seed, epoch, batch, shard.rank * batch_size + place))
                    for place, row in enumerate(own_rows(order, batch, batch_size, shard))
                ]
                for batch in range(first, len(order) // (batch_size * shard.world_size))
            )
        yield from self._run(self._train, batches)

    def test_batches(self, batch_size: int, shard: Shard = ALONE) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's part of the test split in order, normalised, [<= B, channels, H, W] and labels."""
        yield from self._run(self._test, self._in_order("test", self.num_test, batch_size, shard))

    def plain_train_batches(
        self, batch_size: int, shard: Shard = ALONE, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's part of the training split, without augmentation; as `DeviceData.plain_train_batches`."""
        loader = self._loader("train", self._test_transform, self._num_workers)
        yield from self._run(loader, self._in_order("train", self.num_train, batch_size, shard, limit))

    def _run(
        self, loader: tuple[_Plan, DataLoader[Any]], batches: Iterable[Sequence[Request]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in _decoded(*loader, batches):
            images = images.to(self._device, non_blocking=True)
            yield self._normalize(images), labels.to(self._device, non_blocking=True)

    def _in_order(
        self, name: str, num: int | None, batch_size: int, shard: Shard, limit: int | None = None
    ) -> Iterator[list[Request]]:
        if not self._splits.streaming:
            assert num is not None
            chosen = some_rows(num, limit)
            for places in eval_rows(len(chosen), batch_size, shard):
                yield [(row, row, 0) for row in chosen[places.start : places.stop]]
            return
        # The length of a stream is not known before its end: ranks take batches in turn.
        stream: Any = undecoded(self._splits.split(name), self._splits.image_column)
        if limit is not None:
            stream = stream.shuffle(seed=0, buffer_size=SHUFFLE_BUFFER)
        rows = enumerate(islice(stream, limit))
        for batch, requests in enumerate(_chunks(((row, place, 0) for place, row in rows), batch_size)):
            if batch % shard.world_size == shard.rank:
                yield requests

    def _streamed(self, batch_size: int, epoch: int, seed: int, shard: Shard, first: int) -> Iterator[list[Request]]:
        """Yield batches from a stream, which starts again where an epoch is longer than it is.

        Every rank reads the whole stream and keeps its rows: the batches are then those of one process.
        """
        stream: Any = undecoded(self._splits.train, self._splits.image_column)
        stream = stream.shuffle(seed=mixed_seed(seed, epoch) % 2**32, buffer_size=SHUFFLE_BUFFER)
        everyone = batch_size * shard.world_size
        rows = islice(_again_and_again(stream), first * everyone, self.num_train // everyone * everyone)
        requests = (
            (row, place, mixed_seed(seed, epoch, *divmod(place, everyone)))
            for place, row in enumerate(rows, first * everyone)
        )
        for batch in _chunks(requests, everyone):
            yield batch[shard.rank * batch_size : (shard.rank + 1) * batch_size]

    def _measured(self) -> Normalization:
        plan, loader = self._loader("train", self._test_transform, 0)
        # A stream may be sorted by class: its sample is drawn, as its first rows are not like the others.
        limit = SAMPLE_FOR_STATISTICS if self._splits.streaming else None
        step = 1 if self._splits.streaming else math.ceil(self.num_train / SAMPLE_FOR_STATISTICS)
        rows = self._in_order("train", self.num_train, 1, ALONE, limit)
        batches = islice(rows, 0, step * SAMPLE_FOR_STATISTICS, step)
        pixels = [images for images, _ in _decoded(plan, loader, batches)]
        return Normalization.of_images(torch.cat(pixels))


def _decoded(
    plan: _Plan, loader: DataLoader[Any], batches: Iterable[Sequence[Request]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of a pass.

    Raises:
        ValueError: if an image cannot be read or has a wrong label, or a worker has died.
    """
    plan.batches = batches
    others = multiprocessing.active_children()
    with _death_named(loader.num_workers), _handler_of_children_kept():
        iterator = iter(loader)
    _outliving.update(process for process in multiprocessing.active_children() if process not in others)
    while True:
        with _death_named(loader.num_workers):
            batch = next(iterator, None)
        if batch is None:
            return
        if isinstance(batch, InputError):
            raise batch
        yield batch


@contextmanager
def _death_named(num_workers: int) -> Iterator[None]:
    """Turn torch's error about a worker that ended too early into one that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise InputError(
            f"a process that decodes images has died ({error}), expected all {num_workers} to live; if the system"
            " killed it because memory is short, use a smaller --num-workers or --batch-size"
        ) from error


@contextmanager
def _handler_of_children_kept() -> Iterator[None]:
    """Keep the handler of SIGCHLD: torch's DataLoader sets one that raises in the main process when a worker ends.

    It would also raise at the end of the program.  Without it, the next batch says that a worker has died.
    """
    number = getattr(signal, "SIGCHLD", None)  # Windows has none, and other threads may set none
    before = (
        signal.getsignal(number)
        if number is not None and threading.current_thread() is threading.main_thread()
        else None
    )
    try:
        yield
    finally:
        if number is not None and before is not None:
            signal.signal(number, before)


@atexit.register
def _end_workers() -> None:
    """End our workers before multiprocessing does: it would send SIGTERM, which they outlive, and wait forever."""
    for process in _outliving:
        process.kill()


def _leave_signals_to_main(_: int) -> None:
    """Outlive SIGINT and SIGTERM, which terminals and launchers send to every process: the last steps need batches."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _again_and_again(stream: Iterable[Any]) -> Iterator[Any]:
    while True:
        before = 0
        for before, row in enumerate(stream, 1):  # noqa: B007  # counted, to notice a stream without rows
            yield row
        if before == 0:
            raise InputError("the stream of split 'train' has no rows, expected at least one image; check its files")


def _chunks(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    requests = iter(requests)
    while chunk := list(islice(requests, size)):
        yield chunk


def default_num_workers() -> int:
    """Return worker processes for each process that launchers started on this machine: its cores' share, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
