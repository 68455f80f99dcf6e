"""What `.ci/run` does with the wheel and its extra `lab`, in an environment of its own and in another folder."""

import pathlib

import PIL.Image
import timm
import torch
import transformers

import cosify
from cosify.data import Preprocessing, load_images
from cosify.evaluation import cache_features, transfer

assert "site-packages" in cosify.__file__, cosify.__file__
package = pathlib.Path(cosify.__file__).parent
data = ("py.typed", "paper_index.md", "plots/report.html", "cards/template.md")
missing = [name for name in data if not (package / name).is_file()]
assert not missing, missing
model = timm.create_model("test_resnet", head="cos", num_classes=10).eval()
cosify.save(model, "saved")
x = torch.randn(2, 3, 64, 64)
torch.testing.assert_close(cosify.load("saved")(x), model(x), rtol=1e-4, atol=1e-4)

# A transformers model: converted, saved, opened, without and with the plugin's own words.
settings = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64, "num_labels": 5}
native = cosify.convert(transformers.ViTForImageClassification(transformers.ViTConfig(**settings)), kappa="ls").eval()
cosify.save(native, "native")
for opened in (cosify.load("native"), transformers.AutoModelForImageClassification.from_pretrained("native")):
    assert list(cosify.find_heads(opened)) == ["classifier"]
    torch.testing.assert_close(opened(x).logits, native(x).logits, rtol=1e-4, atol=1e-4)

# A shipped backbone: list, create, predict a picture, probe a folder of images, without checkout and network.
name = "resnet18_cifar.cos_60_cifar100"
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
found = transfer(cache_features(model, load_images("images"), Preprocessing.of_pretrained(model), "cache"))
print(f"linear probe on a folder of digits: {found.probe.top1:.1%} of {found.probe.num_test}")
assert found.probe.top1 > 0.8
assert cosify.Rejector is cosify.evaluation.Rejector
print("the wheel works outside of the checkout")
