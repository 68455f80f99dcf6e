"""Tests are offline and use one thread for each process: two workers that share two cores slow each other tenfold."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # huggingface_hub reads its environment once, at import

torch.set_num_threads(1)
