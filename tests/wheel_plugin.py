"""What `.ci/run` does with the wheel alone, without an extra, in an environment of its own and in another folder."""

import importlib
import pathlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable

import timm
import torch

import cosify
from cosify import extras

assert "site-packages" in cosify.__file__, cosify.__file__
heavy = {"accelerate", "datasets", "jinja2", "matplotlib", "rich", "sklearn", "transformers"}
absent = heavy & set(extras.missing_from_lab())
assert absent >= {"accelerate", "datasets", "matplotlib", "sklearn"}, absent

# Every module of the plugin but those that need transformers.
OF_TRANSFORMERS = ("cosify.integrations.callbacks", "cosify.integrations.cosified")
for package in ("functional", "heads", "models", "integrations", "hub"):
    found = importlib.import_module(f"cosify.{package}")
    for module in pkgutil.walk_packages(found.__path__, f"{found.__name__}."):
        if module.name not in OF_TRANSFORMERS:
            importlib.import_module(module.name)

# Create, train, save, load; a shipped backbone by name.
torch.manual_seed(0)
model = timm.create_model("test_resnet", head="cos", num_classes=10)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
images, labels = torch.randn(8, 3, 64, 64), torch.arange(8)
losses = []
for _ in range(5):
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
cosify.save(model.eval(), "saved", label_names=list("abcdefghij"))
torch.testing.assert_close(cosify.load("saved")(images), model(images), rtol=1e-4, atol=1e-4)
cosify.save(timm.create_model("test_resnet", num_classes=3), "softmax")
assert not cosify.find_heads(cosify.load("softmax"))
for row in cosify.list_backbones():
    assert row.is_local
    assert bool(cosify.find_heads(cosify.load(row.name))) == (row.head == "cosine")
print(cosify.list_backbones())


def refused(act: Callable[[], object]) -> str:
    """Return the one error of what an extra is needed for."""
    try:
        act()
    except extras.MissingExtraError as error:
        return str(error)
    raise AssertionError("no error came")


exec("from cosify import *")

# What needs the lab says so, once, whichever way it is asked for.
for name in ("Rejector", "data", "training", "evaluation", "plots", "cards"):
    assert "run pip install 'cosify[lab]'" in refused(lambda name=name: getattr(cosify, name)), name
    assert name not in dir(cosify), name
done = subprocess.run([sys.executable, "-m", "cosify", "train"], capture_output=True, text=True, check=False)
assert done.stderr.startswith("error: this part of cosify needs "), done.stderr
assert done.stderr.count("\n") == 1
for words in (["--help"], ["train", "--help"], ["backbones"]):  # these need the plugin alone
    subprocess.run([sys.executable, "-m", "cosify", *words], check=True, stdout=subprocess.DEVNULL)
if "transformers" in absent:
    pathlib.Path("native").mkdir()
    pathlib.Path("native/config.json").write_text('{"model_type": "vit"}')
    said_of_transformers = (
        refused(lambda: cosify.load("native")),
        refused(lambda: cosify.push("saved", "ORG/net", dry_run=True)),
    )
    assert all("needs transformers, which is not installed; run pip install" in said for said in said_of_transformers)
print(f"the plugin works alone, without {', '.join(sorted(absent))}")
