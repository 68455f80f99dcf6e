"""The generators of a step: the same numbers as torch.manual_seed gives, and nothing that adds up over the steps."""

import random

import numpy as np
import torch

from cosify.training.seeding import seed_everything

CPU = torch.device("cpu")


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_all_generators_are_seeded_as_torch_seeds_its_own() -> None:
    seed_everything(2**40 + 3, CPU)
    first, other = drawn(), drawn()
    seed_everything(2**40 + 3, CPU)
    assert drawn() == first != other
    torch.manual_seed(2**40 + 3)
    assert float(torch.rand(())) == first[2]


def test_no_call_waits_for_an_accelerator_that_is_not_in_use() -> None:
    def waiting() -> list[object]:
        return [*torch.cuda._queued_calls, *torch.cuda._lazy_seed_tracker.get_calls()]

    torch.manual_seed(0)
    before = waiting()
    seed_everything(1, CPU)
    assert waiting() == before
