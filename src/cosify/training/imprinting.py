"""Imprinting: class weights begin at the centred means of their class' features, before the first step."""

import copy

import torch
from torch import Tensor, nn

from cosify.models import find_heads
from cosify.models.stage_freezing import keep_frozen_in_eval
from cosify.training.progress import logger
from cosify.training.session import Session


@torch.no_grad()
def imprint(session: Session, model: nn.Module) -> None:
    """Turn each class weight of a cosine head to the mean feature of its class, less the mean of all features.

    Qi et al., "Low-Shot Learning with Imprinted Weights", CVPR 2018; centred, since features behind a ReLU point in
    nearly one direction.  The features are those of the first epoch, as training would see them: its batches, with
    batch norms in training unless they are frozen.  A weight keeps its length, on which the size of its steps depends,
    and stays as it was if no image has its class.

    Args:
        session: the opened run; every rank must call this together.
        model: network with its head, on the training device; nothing but the weights of its heads changes.
    """
    args, data = session.args, session.data
    seen = copy.deepcopy(model).train()  # its batch norms and the record of its kappa move
    keep_frozen_in_eval(seen, batch_norms=args.freeze_norms)
    heads = find_heads(model)
    embeddings: dict[str, Tensor] = {}
    for name, head in find_heads(seen).items():
        head.register_forward_pre_hook(lambda _, inputs, name=name: embeddings.update({name: inputs[0]}))
    sums = {name: head.weight.new_zeros(len(head.weight), head.weight[0].numel() + 1) for name, head in heads.items()}
    for images, labels in data.train_batches(args.batch_size, epoch=0, seed=args.seed, shard=session.shard):
        seen(images)
        for name, embedding in embeddings.items():
            flat = embedding.flatten(1)
            counted = torch.cat([flat, flat.new_ones(len(flat), 1)], dim=1)
            sums[name].index_add_(0, labels, counted.to(sums[name].dtype))
    for name, head in heads.items():
        weight, sum_and_count = head.weight.flatten(1), session.all_sum(sums[name])
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
