"""What `.ci/run` does with the wheel, in an environment of its own and in another folder."""

import pathlib

import PIL.Image
import timm
import torch

import cosify
from cosify.data import Preprocessing, load_images
from cosify.evaluation import feature_bank, transfer

assert "site-packages" in cosify.__file__, cosify.__file__
package = pathlib.Path(cosify.__file__).parent
missing = [f for f in ("py.typed", "paper_index.md", "plots/report.html", "hub/card.md") if not (package / f).is_file()]
assert not missing, missing
model = timm.create_model("test_resnet", head="cos", num_classes=10).eval()
cosify.save(model, "saved")
x = torch.randn(2, 3, 64, 64)
torch.testing.assert_close(cosify.load("saved")(x), model(x), rtol=1e-4, atol=1e-4)

# A shipped backbone: list, create, predict a picture, probe a folder of images, without checkout and network.
cosify.list_backbones()
name = "resnet18_cifar.cos_ls_cifar100"
assert name in timm.list_models("*cos*", pretrained=True)
model = timm.create_model(name, pretrained=True).eval()
assert str(package) in model.pretrained_cfg["file"], model.pretrained_cfg["file"]
for number, row in enumerate(load_images("digits").test):
    path = pathlib.Path("images", str(row["label"]), f"{number}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    row["image"].save(path)
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
with torch.no_grad():
    logits = model(transform(PIL.Image.open(path).convert("RGB")).unsqueeze(0))
print(model.pretrained_cfg["label_names"][logits.argmax()], logits.softmax(1).max().item())
found = transfer(feature_bank(model, load_images("images"), Preprocessing.of_pretrained(model), "bank"))
print(f"linear probe on a folder of digits: {found.probe.top1:.1%} of {found.probe.num_test}")
assert found.probe.top1 > 0.8
print("the wheel works outside of the checkout")
