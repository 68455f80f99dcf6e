"""A table of the backbones that can be had by name."""

from cosify.models.published import backbones


def list_backbones() -> None:
    """Print the backbones that `timm.create_model(NAME, pretrained=True)` opens, with what was measured of each.

    Accuracy is on the test split of the data that it was trained on, the probe a linear one on frozen features; both
    are told with their errors in the card, README.md in the folder or on the hub.  "here" are weights that came with
    the package; the others are downloaded from the hub on first use.
    """
    from rich import get_console
    from rich.table import Table

    from cosify.hub.card import CardInfo  # with the trainers, for the commands: slow to import

    table = Table("name", "data", "kappa", "accuracy %", "probe %", "MB", "weights")
    for each in backbones().values():
        info = CardInfo.of_folder(each.folder)
        probes = ", ".join(f"{task} {100 * top1:.1f}" for task, (top1, _) in info.probes.items())
        table.add_row(
            each.name,
            info.facts.dataset_name,
            "softmax" if info.head_kappa is None else f"{info.head_kappa:.2f}",
            f"{100 * info.assessment.accuracy:.1f}",
            probes,
            f"{info.weights.num_bytes / 1e6:.1f}",
            ", ".join([*(["here"] if each.is_local else []), *([f"hub: {each.hub_id}"] if each.hub_id else [])]),
        )
    get_console().print(table)
