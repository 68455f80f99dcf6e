"""Publish a saved folder on the hub: checked by every reader first, uploaded as one commit, repeatable."""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # exported, in fact
from torch import nn

from cosify.errors import InputError
from cosify.extras import require_transformers
from cosify.files import write_whole
from cosify.hub.card_of_config import is_unchanged, lacks_processor, minimal_card
from cosify.hub.contents import CARD, FACTS, OF_THE_WEIGHTS, PROCESSOR, PUBLISHED, REJECTOR, REJECTOR_TENSORS
from cosify.hub.export import save
from cosify.hub.hub_client import HubError, impatient, in_short
from cosify.hub.readers import READERS, check_readers, is_own_architecture, probe_images
from cosify.hub.resolve import load, saved_folder
from cosify.models.binding import CONFIG, WEIGHTS
from cosify.models.classifiers import input_shape
from cosify.models.inference import evaluation_mode, logits_of

logger = logging.getLogger("cosify")

REQUIRED = (CONFIG, WEIGHTS)
# Shares of the range of an image's logits; the second is for float16, bfloat16 and what a GPU makes of float32 (TF32).
ROUNDING, ROUNDING_OF_HALF = 1e-3, 0.05


@dataclass(frozen=True)
class Publication:
    """What was, or would be, uploaded.

    Attributes:
        repo_id: `OWNER/NAME`.
        files: relative paths and sizes in bytes.
        readers: those that opened the folder and gave the model's labels.
        url: of the commit or the pull request; None for a dry run.
        commit: its id; None for a dry run.
    """

    repo_id: str
    files: tuple[tuple[str, int], ...]
    readers: tuple[str, ...]
    url: str | None = None
    commit: str | None = None


def push(
    model: nn.Module | str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    label_names: Sequence[str] | None = None,
    message: str = "Upload with cosify",
    dry_run: bool = False,
    check: Callable[[Path, str], None] | None = None,
) -> Publication:
    """Check a model in every reader and upload it.

    The token is that of `hf auth login` or HF_TOKEN; HF_ENDPOINT names another hub.  Files that the hub has already are
    not sent again, so the same call completes an upload that broke off.  What an earlier push said of other weights,
    such as their evaluation or rejector, is deleted in the same commit.

    Args:
        model: with a cosine head; or a folder that `save` wrote, or a run with an export.
        repo_id: `OWNER/NAME`; made if it is not there.
        private: whether a new repository is private.
        revision: branch to commit to, made if it is not there; default: main.
        create_pr: open a pull request instead.
        label_names: of a model, as in `save`.
        message: of the commit.
        dry_run: check everything, and send nothing.
        check: called first, with the folder and `repo_id`; a folder with facts.yaml needs `cosify.cards.check_card` (of
            the lab).

    Raises:
        ValueError: if the folder is incomplete, has facts.yaml and no `check` came, its config.json rebuilds another
            network than the model, a reader gives other labels, or `revision` comes with `create_pr`.
        HubError: a ValueError and an OSError, if the hub cannot be reached, refuses, gives no answer three times for 60
            s (HF_HUB_DOWNLOAD_TIMEOUT), or asks to wait for more than 5 minutes; the message repeats its answer.
    """
    check_repo_id(repo_id)
    if create_pr and revision is not None:
        raise InputError(f"revision {revision!r} came with create_pr, expected one of them: a pull request is to main")
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            scratch = stack.enter_context(TemporaryDirectory(prefix="cosify-push-"))
            folder = save(model, scratch, label_names=label_names)
            check_rebuilt(folder, model)
        else:
            folder = folder_to_publish(model)
        if check is not None:
            check(folder, repo_id)
        elif (folder / FACTS).is_file():
            raise InputError(
                f"{folder} has a {FACTS}, expected a check that its card says what its files say; call cosify.push(...,"
                " check=cosify.cards.check_card), which needs pip install 'cosify[lab]', or cosify publish"
            )
        if lacks_processor(folder):
            logger.warning(
                "%s gets no %s, so transformers' pipeline cannot prepare its images; save the model's image processor"
                " beside the model (processor.save_pretrained(FOLDER)), and publish that folder",
                repo_id,
                PROCESSOR,
            )
        readers = check_folder(folder)
        card = folder / CARD
        if not card.is_file() or is_unchanged(card.read_text("utf-8", "replace")):  # it may be of other weights
            write_whole(card, minimal_card(folder, repo_id))
            logger.warning(
                "%s has no card of your own; %s says what config.json does, and what is not known", folder, CARD
            )
        files = tuple((str(path.relative_to(folder)), path.stat().st_size) for path in files_to_publish(folder))
        done = Publication(repo_id, files, readers)
        if dry_run:
            return done
        try:
            with impatient():
                url, commit = _upload(folder, done, private, revision, create_pr, message)
        except Exception as error:  # of many types, by what is wrong with the connection or the hub
            raise HubError(
                f"{repo_id} could not be uploaded to {constants.ENDPOINT} ({in_short(error)}); once that is mended, the"
                " same command goes on where this one ended"
            ) from error
        return replace(done, url=url, commit=commit)


def _upload(
    folder: Path, what: Publication, private: bool, revision: str | None, create_pr: bool, message: str
) -> tuple[str | None, str]:
    """Send the files as one commit; return the url of the commit or the pull request, and the commit's id."""
    api = HfApi()
    api.create_repo(what.repo_id, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(what.repo_id, branch=revision, exist_ok=True)
    done = api.upload_folder(
        repo_id=what.repo_id,
        folder_path=folder,
        allow_patterns=[name for name, _ in what.files],
        delete_patterns=[*OF_THE_WEIGHTS],
        revision=revision,
        create_pr=create_pr,
        commit_message=message,
    )
    return done.pr_url if create_pr else done.commit_url, done.oid


def folder_to_publish(path: str | Path) -> Path:
    """Return the folder itself, or the export of a run.

    Raises:
        ValueError: if a file that is needed is missing.
    """
    folder = saved_folder(path).resolve()
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing)}, expected what cosify.save writes; save the model there")
    return folder


def files_to_publish(folder: Path) -> list[Path]:
    """Return the files of a folder that are published, sorted; other files, such as a checkpoint, are not.

    Raises:
        ValueError: if a symbolic link leads out of the folder, or a rejector lacks the file that it names.
    """
    tensors = rejector_tensors(folder)
    names = [tensors if name == REJECTOR_TENSORS else name for name in PUBLISHED]
    found = sorted(folder / name for name in names if name is not None and (folder / name).is_file())
    for path in found:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{path} leads out of the folder, to {path.resolve()}, expected files of its own; replace the symbolic"
                " link by what it points at"
            )
    return found


def rejector_tensors(folder: Path) -> str | None:
    """Return the name of the tensors that rejector.json names, None without one; others are of earlier fits."""
    if not (folder / REJECTOR).is_file():
        return None
    try:
        name = json.loads((folder / REJECTOR).read_text(encoding="utf-8"))["tensors"]
        if fnmatch(name, REJECTOR_TENSORS) and Path(name).name == name and (folder / name).is_file():
            return str(name)
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(f"{REJECTOR} in {folder} names no file {REJECTOR_TENSORS} beside it; fit and save it again")


def check_repo_id(repo_id: str) -> None:
    """Raise a ValueError unless a name of a repository is `OWNER/NAME`."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"the repository {repo_id!r} cannot be: {error}") from error
    if "/" not in repo_id:
        raise InputError(f"the repository is {repo_id!r}, expected OWNER/NAME; write whose it is before a /")


def check_rebuilt(folder: Path, model: nn.Module) -> None:
    """Raise a ValueError unless a folder opens as the model that was saved in it, by the labels of random images.

    A change that no weight shows, such as another stride, is in no config.json.  The model is asked as it is, on its
    device; a label counts as another one where its logit is further from the largest than rounding explains.

    Args:
        folder: that `save` wrote.
        model: what was saved; the modes of its modules are restored.
    """
    rebuilt = load(folder)
    images = probe_images(input_shape(rebuilt))
    weight = next((each for each in model.parameters() if each.is_floating_point()), images)
    with torch.no_grad(), evaluation_mode(model):
        labels = logits_of(rebuilt, images).argmax(dim=1)
        logits = logits_of(model, images.to(weight.device, weight.dtype)).float().cpu()
    largest, smallest = logits.amax(dim=1), logits.amin(dim=1)
    short = largest - logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    exact = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    rounding = ROUNDING if exact else ROUNDING_OF_HALF
    wrong = int((~(short <= rounding * (largest - smallest))).sum())  # NaN is wrong, too
    if wrong > 0:
        raise InputError(
            f"the saved config.json rebuilds another network than this {type(model).__name__}: {wrong} of {len(images)}"
            " images get another label, expected the same; give what was changed after the model was made, such as a"
            " stride or a layer without weights, as an argument of timm.create_model or in the config of transformers"
        )


def check_folder(folder: Path) -> tuple[str, ...]:
    """Open a folder in every reader that knows its architecture, and compare labels with the model's.

    Returns:
        The readers.

    Raises:
        MissingExtraError: if transformers is not installed; it is one of the readers.
        ValueError: if a reader fails, or gives another label.
    """
    require_transformers(f"{folder}, whose labels are compared in timm and in transformers before it is published,")
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    readers = READERS[:2] if is_own_architecture(config) else READERS
    model = load(folder)
    images = probe_images(input_shape(model))
    with torch.no_grad():
        labels = logits_of(model, images).argmax(dim=1)
    check_readers(folder, images, labels, readers)
    return readers
