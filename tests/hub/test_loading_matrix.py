"""One saved folder, four readers, each in a process of its own."""

from pathlib import Path

import pytest

from tests.processes import run_python

PREAMBLE = """
import sys, torch
folder, plugin = sys.argv[1], sys.argv[2] == "plugin"
if plugin:
    import cosify
expected = torch.load(folder + "/expected.pt", weights_only=True)
images = expected["images"]
def same_labels(logits):
    assert torch.equal(logits.argmax(1), expected["labels"])
def same_logits(logits):
    torch.testing.assert_close(logits, expected["logits"], rtol=1e-4, atol=1e-4)
def finish():
    assert plugin or "cosify" not in sys.modules
    print("done")
"""

PLUGIN_TIMM = """
import timm
model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
head = model.get_classifier()
assert type(head).__name__ == "CosineLinear" and head.kappa_spec == "ls", head
torch.testing.assert_close(head.kappa, expected["kappa"])
with torch.no_grad():
    same_logits(model(images))
    same_logits(cosify.load(folder)(images))
    make = lambda **kw: timm.create_model("local-dir:" + folder, pretrained=True, **kw).eval()
    three = make(num_classes=3)
    assert three(images).shape == (32, 3) and type(three.fc).__name__ == "CosineLinear"
    assert abs(three.fc.kappa - expected["kappa"]) > 0.1, "a kappa of other classes must not be kept"
    assert make(num_classes=0)(images).ndim == 2
    linear = make(head="linear")
    assert type(linear.fc) is torch.nn.Linear
    same_labels(linear(images))
    fixed = make(kappa=30.0)
    assert fixed.fc.kappa == 30.0
    same_labels(fixed(images))
    assert len(make(features_only=True)(images)) > 1
assert "transformers" not in sys.modules, "timm users pay nothing for transformers"
finish()
"""

STOCK_TIMM = """
import timm
model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
assert type(model.fc) is torch.nn.Linear and not model.fc.bias.any()
with torch.no_grad():
    same_labels(model(images))
from safetensors.torch import load_file
assert model.load_state_dict(load_file(folder + "/model.safetensors"), strict=True)
timm.create_model("local-dir:" + folder, pretrained=True, num_classes=0)
timm.create_model("local-dir:" + folder, pretrained=True, num_classes=9)
timm.create_model("local-dir:" + folder, pretrained=True, features_only=True)
finish()
"""

TRANSFORMERS = """
from transformers import AutoModel, AutoModelForImageClassification, pipeline
model = AutoModelForImageClassification.from_pretrained(folder)
(same_logits if plugin else same_labels)(model(images).logits)
assert (type(model.timm_model.fc).__name__ == "CosineLinear") == plugin
assert model.config.id2label[2] == "cat"
AutoModel.from_pretrained(folder)
from PIL import Image
import numpy as np
picture = Image.fromarray((np.arange(64 * 64 * 3) % 251).reshape(64, 64, 3).astype(np.uint8))
result = pipeline("image-classification", folder, top_k=5)(picture)
assert {row["label"] for row in result} == {"ant", "bee", "cat", "dog", "elk"}, result
finish()
"""

PLUGIN_TRANSFORMERS = """
from transformers import AutoModelForImageClassification
load = lambda **kw: AutoModelForImageClassification.from_pretrained(folder, **kw)
model = load()
torch.testing.assert_close(model.timm_model.fc.kappa, expected["kappa"])
output = model(images, labels=expected["labels"], output_hidden_states=True)
torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, expected["labels"]))
assert len(output.hidden_states) > 1
assert load(dtype=torch.bfloat16)(images).logits.dtype == torch.float32
four = load(num_labels=4, ignore_mismatched_sizes=True)
assert type(four.timm_model.fc).__name__ == "CosineLinear" and four(images).logits.shape == (32, 4)
assert abs(four.timm_model.fc.kappa - expected["kappa"]) > 0.1
model.gradient_checkpointing_enable()
model.train()
model(images, labels=expected["labels"]).loss.backward()
assert all(p.grad is not None for p in model.parameters())
model.eval()
kappa, logits = model.timm_model.fc.kappa.clone(), model(images).logits
model.save_pretrained(folder + "/again")
again = load.__globals__["AutoModelForImageClassification"].from_pretrained(folder + "/again")
torch.testing.assert_close(again(images).logits, logits)
import timm
torch.testing.assert_close(timm.create_model("local-dir:" + folder + "/again", pretrained=True).eval()(images), logits)
finish()
"""

CASES = {
    "plugin timm": ("plugin", PLUGIN_TIMM),
    "plugin transformers and pipeline": ("plugin", TRANSFORMERS),
    "plugin transformers, training": ("plugin", PLUGIN_TRANSFORMERS),
    "stock timm": ("stock", STOCK_TIMM),
    "stock transformers and pipeline": ("stock", TRANSFORMERS),
}


# The longest of them is about training with transformers.
SLOW = "plugin transformers, training"


@pytest.mark.parametrize("name", [n if n != SLOW else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_reader(name: str, folder: Path) -> None:
    mode, code = CASES[name]
    assert run_python("-c", PREAMBLE + code, str(folder), mode, stock=mode == "stock").endswith("done\n")
