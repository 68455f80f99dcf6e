"""Where the classifier of a trained network begins: at the class means of its features, or trained on them alone."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.heads import CosineHead
from cosify.models import find_classifiers, find_heads
from cosify.models.stage_freezing import keep_frozen_in_eval
from cosify.settings.training import ClassifierStart
from cosify.training.loop import SAMPLING
from cosify.training.objective import Objective
from cosify.training.prepare import class_counts
from cosify.training.progress import logger
from cosify.training.session import Session

# Of the probe.  Numbers of its features on a process, a gigabyte; further images are left out.  Adam's steps depend
# neither on the size of the features nor on kappa.
MOST_NUMBERS = 2**28
LEAST_EPOCHS, LEAST_STEPS, LR = 5, 1000, 1e-3


def begin_heads(session: Session, model: nn.Module, how: ClassifierStart) -> None:
    """Begin the classifiers of a network as `head_start` of the settings says; nothing but their weights changes.

    The features are those of the batches of the first epoch, augmented, in float32, without mixup and erasing, with
    batch norms in training unless they are frozen.  A classifier that is given more than one embedding of an image,
    such as one for each token, stays as it is.

    Args:
        session: the opened run; every rank must call this together.
        model: network with its head, on the training device.
        how: "means" for cosine heads, "probe", or "none", which leaves them as they are.

    Raises:
        ValueError: if this is so of all of them.
    """
    if how == "means":
        _imprint(session, find_heads(model), model)
    elif how == "probe":
        _probe(session, find_heads(model) or find_classifiers(model), model)


@torch.no_grad()
def _imprint(session: Session, heads: Mapping[str, CosineHead], model: nn.Module) -> None:
    """Turn each class weight of a cosine head to the mean feature of its class, less the mean of all features.

    Qi et al., "Low-Shot Learning with Imprinted Weights", CVPR 2018; centred, since features behind a ReLU point in
    nearly one direction.  A weight keeps its length, on which the size of its steps depends, and stays as it was if no
    image has its class.
    """
    sums = {name: head.weight.new_zeros(len(head.weight), head.weight[0].numel() + 1) for name, head in heads.items()}
    for embeddings, labels in _embeddings(session, model, heads):
        sums = {name: sums[name] for name in embeddings}
        for name, embedding in embeddings.items():
            flat = embedding.flatten(1)
            counted = torch.cat([flat, flat.new_ones(len(flat), 1)], dim=1)
            sums[name].index_add_(0, labels, counted.to(sums[name].dtype))
    for name, sum_and_count in sums.items():
        head = heads[name]
        weight, sum_and_count = head.weight.flatten(1), session.all_sum(sum_and_count)
        means = sum_and_count[:, :-1] / sum_and_count[:, -1:]  # not a number for a class without images
        overall = sum_and_count.sum(dim=0)
        centred = means - overall[:-1] / overall[-1]
        length = centred.norm(dim=1, keepdim=True)
        begun = centred * (weight.norm(dim=1, keepdim=True) / length)
        head.weight.copy_(torch.where(length > 0, begun, weight).view_as(head.weight))
        if session.is_main:
            unseen = int((sum_and_count[:, -1] == 0).sum())
            but = f", but for {unseen} classes without images in it" if unseen else ""
            logger.info("class weights begin at the centred class means of the first epoch's features%s", but)


def _probe(session: Session, heads: Mapping[str, nn.Module], model: nn.Module) -> None:
    """Train the classifiers alone, by the loss of the run without its margins.

    Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022: from a
    classifier that fits, the first steps change the features less.  Class weights of a cosine head keep their lengths.
    """
    args, world_size = session.args, session.shard.world_size
    plain = replace(args, cosine_margin=0.0, angular_margin=0.0)
    seen: dict[str, list[Tensor]] = {name: [] for name in heads}
    all_labels: list[Tensor] = []
    numbers = 0
    for embeddings, batch_labels in _embeddings(session, model, heads):
        all_labels.append(batch_labels)
        for name, embedding in embeddings.items():
            seen[name].append(embedding)
            numbers += embedding.numel()
        if numbers > MOST_NUMBERS:
            break
    labels, counts = torch.cat(all_labels), class_counts(session)
    for name, head in heads.items():
        if not seen[name]:
            continue
        features = torch.cat(seen.pop(name))
        probe = copy.deepcopy(head).train()  # the record of its kappa moves
        objective = Objective(nn.Sequential(probe, nn.Flatten()), plain, counts).to(labels.device)
        trained = {key: value for key, value in probe.named_parameters() if key in ("weight", "bias")}
        optimizer = torch.optim.AdamW(trained.values(), LR, weight_decay=0.0)
        order = torch.Generator().manual_seed(args.seed)
        steps = -(-len(labels) // args.batch_size)  # of an epoch
        epochs = max(LEAST_EPOCHS, -(-LEAST_STEPS // steps))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
        for _ in range(epochs):
            mean = features.new_zeros(())
            for rows in torch.randperm(len(labels), generator=order).to(labels.device).split(args.batch_size):
                loss, _ = objective(features[rows], labels[rows])
                optimizer.zero_grad()
                loss.backward()
                for value in trained.values():
                    if value.grad is not None:
                        value.grad = session.all_sum(value.grad) / world_size
                optimizer.step()
                schedule.step()
                mean += loss.detach() * (len(rows) / len(labels))
        mean = session.all_sum(mean) / world_size
        with torch.no_grad():
            for key, mine in head.named_parameters():
                if key == "weight" and isinstance(head, CosineHead):
                    length = mine.flatten(1).norm(dim=1, keepdim=True)
                    mine.copy_((F.normalize(trained[key].flatten(1)) * length).view_as(mine))
                elif key in trained:
                    mine.copy_(trained[key])
        if session.is_main:
            number = len(labels) * world_size
            logger.info("%s trained alone on %d features of the start, to a loss of %.3f", name, number, mean)


@torch.no_grad()
def _embeddings(
    session: Session, model: nn.Module, heads: Mapping[str, nn.Module]
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield what each classifier is given for a batch, by its name, and the labels [B]."""
    args, data = session.args, session.data
    seen = copy.deepcopy(model).train()  # its batch norms move
    keep_frozen_in_eval(seen, batch_norms=args.freeze_norms)
    given: dict[str, Tensor] = {}
    refused: dict[str, str] = {}

    def keep(name: str, embedding: Tensor) -> None:
        dim = seen.get_parameter(f"{name}.weight")[0].numel()
        if embedding.numel() == dim * len(embedding):
            given[name] = embedding.clone()  # alone: it may be a view of all tokens
            return
        shape = list(embedding.shape[1:])
        refused[name] = f"classifier {name} is given {shape} for an image, expected one embedding of {dim} numbers"

    for name in heads:
        seen.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: keep(name, inputs[0]))
    balance = SAMPLING.get(args.balance, 0.0)
    batches = data.train_batches(args.batch_size, epoch=0, seed=args.seed, shard=session.shard, balance=balance)
    for number, (images, labels) in enumerate(batches):
        seen(images)
        if not given:
            raise InputError(f"{next(iter(refused.values()))}; use --set head_start=none")
        for refusal in refused.values() if number == 0 and session.is_main else ():
            logger.info("%s; it begins as it was", refusal)
        yield dict(given), labels
