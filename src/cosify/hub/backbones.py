"""A table of the backbones that can be had by name."""

from cosify.models.published import backbones

WIDTH = 122  # columns that a row needs; files and pipes have 80 of rich


def list_backbones() -> None:
    """Print the backbones that `timm.create_model(NAME, pretrained=True)` opens, with what was measured of each.

    Accuracy is on the test split of the data that it was trained on, the probe a linear one on frozen features; both
    are told with their errors in the card, README.md in the folder or on the hub.  "here" are weights that came with
    the package; the others are downloaded from the hub on first use.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Column, Table

    from cosify.hub.card import CardInfo  # with the trainers, for the commands: slow to import

    columns = ("name", "data", "kappa", "accuracy %", "probe %", "MB", "weights")
    table = Table(*(Column(name, overflow="fold", no_wrap=name == "name") for name in columns), box=SIMPLE)
    for each in backbones().values():
        where = "\n".join([*(["here"] if each.is_local else []), *([f"hub: {each.hub_id}"] if each.hub_id else [])])
        try:
            info = CardInfo.of_folder(each.folder)
        except ValueError as error:  # it opens all the same
            table.add_row(each.name, str(error), "-", "-", "-", "-", where)
            continue
        probes = "\n".join(f"{task} {top1:.1f}" for task, (top1, _) in info.probes.items())
        table.add_row(
            each.name,
            info.facts.dataset_name,
            "softmax" if info.head_kappa is None else f"{info.head_kappa:.2f}",
            f"{100 * info.assessment.accuracy:.1f}",
            probes,
            f"{info.measured.num_bytes / 1e6:.1f}",
            where,
        )
    Console(width=max(Console().width, WIDTH)).print(table)
