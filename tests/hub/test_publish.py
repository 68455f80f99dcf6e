"""Publishing to a hub on the loopback interface, and opening what was published."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch

import cosify
from cosify.hub import push
from cosify.hub.card_of_config import minimal_card
from cosify.models.binding import WEIGHTS
from tests.hub.make_folder import main as make_folder
from tests.loopback_hub import SILENCE, LoopbackHub, Repository
from tests.processes import run_python, stock_python

REPO = "ORG/net"
pytestmark = pytest.mark.slow  # each test starts several processes that import timm and transformers

PUSH = """
import json, sys
import cosify
sys.executable = sys.argv[3]
if not sys.executable:  # the readers are tested once; here they would only take time
    cosify.hub.publish.check_folder = lambda folder: ()
done = cosify.push(sys.argv[1], "ORG/net", **json.loads(sys.argv[2]))
print(json.dumps([done.commit, done.url, done.files]))
"""

OPEN = """
import sys, torch
import timm, cosify
from transformers import AutoModelForImageClassification, pipeline
expected = torch.load(sys.argv[1] + "/expected.pt", weights_only=True)
images = expected["images"]
model = timm.create_model("hf-hub:ORG/net", pretrained=True).eval()
with torch.no_grad():
    torch.testing.assert_close(model(images), expected["logits"], rtol=1e-4, atol=1e-4)
    assert torch.equal(cosify.load("ORG/net")(images).argmax(1), expected["labels"])
    native = AutoModelForImageClassification.from_pretrained("ORG/net")
    assert torch.equal(native(images).logits.argmax(1), expected["labels"])
    assert timm.create_model("hf-hub:ORG/net", pretrained=True, num_classes=3)(images).shape == (32, 3)
    assert timm.create_model("hf-hub:ORG/net", pretrained=True, num_classes=0)(images).ndim == 2
torch.testing.assert_close(model.fc.kappa, expected["kappa"])
print("done")
"""


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub().running() as hub:
        yield hub


def upload(hub: LoopbackHub, folder: Path, cache: Path, reader: str = "", **settings: object) -> list[object]:
    printed = run_python("-c", PUSH, str(folder), json.dumps(settings), reader, **hub.environment(str(cache)))
    found: list[object] = json.loads(printed.splitlines()[-1])
    return found


def test_what_is_pushed_opens_in_timm_and_transformers(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    commit, url, _ = upload(hub, folder, tmp_path / "cache", stock_python(), private=True)
    repository = hub.repositories[REPO]
    assert repository.private
    assert repository.refs["main"] == commit
    assert str(url).startswith(hub.url)
    assert set(repository.files()) >= {"config.json", "model.safetensors"}
    assert "expected.pt" not in repository.files(), "a pickle must not be published"
    assert repository.files()["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    environment = hub.environment(str(tmp_path / "other"))
    assert run_python("-c", OPEN, str(folder), **environment).endswith("done\n")
    # What was downloaded opens again without any network.
    before = len(hub.requests)
    assert run_python("-c", OPEN, str(folder), **{**environment, "HF_HUB_OFFLINE": "1"}).endswith("done\n")
    assert len(hub.requests) == before


def test_a_dry_run_sends_nothing(folder: Path) -> None:
    done = push(folder, REPO, dry_run=True)
    assert (folder / "README.md").read_text(encoding="utf-8") == minimal_card(folder, REPO)
    assert done.readers == ("timm with cosify", "transformers with cosify", "timm alone", "transformers alone")
    assert (done.url, done.commit) == (None, None)
    assert [name for name, _ in done.files] == ["README.md", "config.json", "model.safetensors"]


def test_a_card_is_written_anew_until_someone_works_on_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosify.hub.publish.check_folder", lambda folder: ())  # which takes seconds
    card = folder / "README.md"
    push(folder, REPO, dry_run=True)
    cosify.save(timm.create_model("test_resnet", num_classes=4, head="cos", kappa=33), folder)
    push(folder, "org/final", dry_run=True)
    text = card.read_text(encoding="utf-8")
    assert text == minimal_card(folder, "org/final")
    assert "4 classes apart, with a cosine-softmax head, kappa fixed at 33" in text
    worked_on = text.replace("license: unknown", "license: mit")
    for mine in (worked_on, "mine", "M\xfcller".encode("latin-1")):
        card.write_bytes(mine if isinstance(mine, bytes) else mine.encode())
        before = card.read_bytes()
        push(folder, REPO, dry_run=True, check=lambda *_: None)
        assert card.read_bytes() == before


def test_an_upload_that_broke_off_is_repeated(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    hub.refuse = lambda method, path: "/commit/" in path
    with pytest.raises(AssertionError, match="503"):
        upload(hub, folder, tmp_path / "cache")
    assert len(hub.uploads) == 1, "the weights are there"
    hub.refuse = lambda method, path: False
    upload(hub, folder, tmp_path / "cache")
    assert sum("_lfs" in request for request in hub.requests) == 1, "they were sent twice"
    again = upload(hub, folder, tmp_path / "cache")
    assert hub.repositories[REPO].files() == hub.repositories[REPO].files(str(again[0]))


def test_branches_and_pull_requests(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    upload(hub, folder, tmp_path / "cache", revision="v2")
    repository = hub.repositories[REPO]
    assert set(repository.files("v2")) >= {"config.json"}
    assert repository.files("main") == {}
    _, url, _ = upload(hub, folder, tmp_path / "cache", create_pr=True)
    assert str(url).endswith("/discussions/1")
    assert repository.files("main") == {}
    assert set(repository.files("refs/pr/1")) >= {"config.json"}


def test_a_branch_beside_a_pull_request_is_refused_first(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="revision 'v2' came with create_pr, expected one of them"):
        upload(hub, folder, tmp_path / "cache", create_pr=True, revision="v2")
    assert not hub.repositories


def test_numbers_of_other_weights_do_not_stay(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    for name in ("evaluation.json", ".eval_results/accuracy.yaml", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    upload(hub, folder, tmp_path / "cache")
    repository = hub.repositories[REPO]
    by_hand = {"mine.txt": b"of the owner", "preprocessor_config.json": b"{}"}
    repository.commit("main", repository.files() | by_hand, "by hand")
    assert {"evaluation.json", ".eval_results/accuracy.yaml", "mine.txt"} < set(repository.files())
    (folder / "evaluation.json").unlink()
    (folder / ".eval_results/accuracy.yaml").unlink()
    upload(hub, folder, tmp_path / "cache")
    left = {"README.md", "config.json", "model.safetensors", "mine.txt", "preprocessor_config.json"}
    assert set(repository.files()) - {".gitattributes"} == left


def test_a_wrong_token_is_said_and_never_shown(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        run_python("-c", PUSH, str(folder), "{}", "", **hub.environment(str(tmp_path), token="hf_secretsecret"))
    assert "401" in str(caught.value)
    assert "hf_secretsecret" not in str(caught.value)


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda content: content[:-100], "Consistency check failed"),
    "other bytes": (lambda content: content[:-4] + b"\1\2\3\4", "the weights .* were damaged"),
}
# Each way in, of cosine and softmax models alike; `at` is a cache of its own.
WAYS = {
    "timm": "timm.create_model('hf-hub:ORG/net', pretrained=True, cache_dir=at)",
    "new classes": "timm.create_model('hf-hub:ORG/net', pretrained=True, num_classes=3)",
    "linear": "timm.create_model('hf-hub:ORG/net', pretrained=True, head='linear')",
    "features": "timm.create_model('hf-hub:ORG/net', pretrained=True, features_only=True)",
    "pipeline": "transformers.pipeline('image-classification', 'ORG/net')",
    "base model": "transformers.AutoModel.from_pretrained('ORG/net', cache_dir=at)",
}


@pytest.mark.parametrize(("name", "softmax"), [("truncated", False), ("other bytes", False), ("other bytes", True)])
def test_damaged_downloads_are_refused(
    hub: LoopbackHub, folder: Path, tmp_path: Path, name: str, softmax: bool
) -> None:
    damage, message = DAMAGES[name]
    if softmax:
        folder = tmp_path / "softmax"
        cosify.save(timm.create_model("test_resnet", num_classes=5), folder)
    upload(hub, folder, tmp_path / "cache")
    hub.tamper = lambda path, content: damage(content) if path.endswith(".safetensors") else content
    program = "import sys, timm, transformers, cosify\nat = sys.argv[1]\n" + "".join(
        f'try:\n    {way}\nexcept (OSError, ValueError) as error:\n    print(error)\nelse:\n    print("""{way}""")\n'
        for way in WAYS.values()
    )
    printed = run_python("-c", program, str(tmp_path / "at"), **hub.environment(str(tmp_path / "other")))
    assert len(re.findall(message, printed)) >= len(WAYS), printed
    assert [way for way in WAYS.values() if way in printed] == []
    hub.tamper = lambda path, content: content
    printed = run_python("-c", program, str(tmp_path / "whole"), **hub.environment(str(tmp_path / "again")))
    assert WAYS["timm"] in printed
    assert WAYS["base model"] in printed


# Requests that fail, what a hub does then, and what is said.
TROUBLES: dict[str, tuple[str, tuple[int, dict[str, str]], str]] = {
    "silence": ("", SILENCE, r"\(ReadTimeout: "),
    "silence while weights are sent": ("PUT /_lfs", SILENCE, r"has not answered 3 times"),
    "a day": ("", (503, {"Retry-After": "86400"}), r"HubError: .* asks to wait for 86400 s"),
    "redirects without end": ("", (302, {"Location": "/again"}), r"TooManyRedirects: "),
    "moved": ("POST /api/repos", (301, {"Location": "/elsewhere"}), r"404 Not Found"),
    "503 for weights": ("PUT /_lfs", (503, {"Retry-After": "0"}), r"503 Service Unavailable"),
    "507 for the commit": ("POST /api/models/ORG/net/commit", (507, {}), r"507 "),
}
IMPATIENT = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1"}


HASTE = "sleep = time.sleep\ntime.sleep = lambda seconds: sleep(min(seconds, 0.1) if seconds < 60 else seconds)\n"
PUSH_IN_TROUBLE = f"""
import os, sys, time, urllib.request, cosify
cosify.hub.publish.check_folder = lambda folder: ()
{HASTE}
for case in range(int(sys.argv[2]) + 1):
    urllib.request.urlopen(os.environ["HF_ENDPOINT"] + f"/case/{{case}}").read()
    started = time.time()
    try:
        print(cosify.push(sys.argv[1], "ORG/net").repo_id)
    except Exception as error:
        print(f"{{time.time() - started:.1f}}", type(error).__name__, error)
"""


def test_troubles_of_a_push_are_one_error(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    """Each ends soon, in one line; the same call goes on when the hub is well again."""
    troubles, case = list(TROUBLES.items()), 0

    def instead(method: str, path: str) -> tuple[int, dict[str, str]] | None:
        nonlocal case
        if path.startswith("/case/"):
            case = int(path.rpartition("/")[2])
            return 200, {}
        begin, answer, _ = troubles[case][1] if case < len(troubles) else ("none", SILENCE, "")
        return answer if f"{method} {path}".startswith(begin) else None

    hub.instead = instead
    environment = {**hub.environment(str(tmp_path)), **IMPATIENT}
    lines = run_python("-c", PUSH_IN_TROUBLE, str(folder), str(len(troubles)), **environment).splitlines()
    assert len(lines) == len(troubles) + 1
    for (name, (_, _, message)), line in zip(troubles, lines, strict=False):
        assert re.match(f"[0-9.]+ HubError ORG/net could not be uploaded to .*{message}", line), f"{name}: {line}"
        assert float(line.split()[0]) < 20, line
        assert line.endswith("once that is mended, the same command goes on where this one ended")
    assert lines[-1] == REPO


def test_troubles_of_a_load_are_one_error(hub: LoopbackHub, tmp_path: Path) -> None:
    answers = {
        "silent": SILENCE,
        "busy": (503, {"Retry-After": "86400"}),
        "limited": (429, {"ratelimit": '"api";r=0;t=7200'}),
        "round": (302, {"Location": "/ORG/round/resolve/main/config.json"}),
        "broken": (500, {}),
    }
    hub.instead = lambda method, path: answers.get(path.split("/")[2])
    program = (
        f"import sys, time, cosify\n{HASTE}for name in sys.argv[1:]:\n    started = time.time()\n    try:\n"
        "        cosify.load(f'ORG/{name}')\n    except FileNotFoundError as error:\n"
        "        print(name, f'{time.time() - started:.1f}', error)\n"
    )
    environment = {**hub.environment(str(tmp_path)), **IMPATIENT}
    lines = run_python("-c", program, *answers, timeout=200, **environment).splitlines()
    assert [line.split()[0] for line in lines] == list(answers)
    for line in lines:
        assert float(line.split()[1]) < 60, line
        assert "is neither a folder here nor a model that the hub could give" in line


def test_the_command_says_one_line(folder: Path, tmp_path: Path) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path)}
    program = (
        "import cosify.hub.publish\ncosify.hub.publish.check_folder = lambda folder: ()\n"
        f"from cosify.__main__ import main\nmain(['publish', {str(folder)!r}, {REPO!r}, '--push'])\n"
    )
    with pytest.raises(AssertionError, match=r"error: ORG/net could not be uploaded to .* \(ConnectError") as caught:
        run_python("-c", program, **nowhere)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("repo_id", ["alone", "a/b/c", "ORG/ net", "ORG/..", ""])
def test_names_of_repositories_are_checked_first(repo_id: str) -> None:
    with pytest.raises(ValueError, match=r"the repository .* (cannot be|expected OWNER/NAME)"):
        push("no such folder", repo_id, dry_run=True)


def test_models_of_others_are_left_alone(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    """They are neither hashed nor asked for: as many requests as without cosify."""
    config = json.loads((folder / "config.json").read_text())
    other = {key: value for key, value in config.items() if "cosify" not in key}
    files = {"config.json": json.dumps(other).encode(), "model.safetensors": (folder / WEIGHTS).read_bytes()}
    hub.repositories["ORG/other"] = Repository()
    hub.repositories["ORG/other"].commit("main", files, "by others")
    program = "import timm\n{}\ntimm.create_model('hf-hub:ORG/other', pretrained=True)"
    counts = []
    for name, plugin in (
        ("without", ""),
        ("with", "import cosify.integrations.timm as plugin\nplugin.check_download = 0"),
    ):
        before = len(hub.requests)
        run_python("-c", program.format(plugin), **hub.environment(str(tmp_path / name)))
        counts.append(len(hub.requests) - before)
    assert counts[0] == counts[1] > 0


def test_a_revision_is_kept_to(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    first, *_ = upload(hub, folder, tmp_path / "cache")
    make_folder(str(tmp_path / "other"), kappa=33.0)
    upload(hub, tmp_path / "other", tmp_path / "cache")
    kappa = "import timm, cosify; print(float(timm.create_model('hf-hub:ORG/net{}', pretrained=True).fc.kappa))"
    environment = hub.environment(str(tmp_path / "cache"))
    found = [float(run_python("-c", kappa.format(at), **environment)) for at in ("", "@main", f"@{first}")]
    expected = float(torch.load(folder / "expected.pt", weights_only=True)["kappa"])
    assert found == [33, 33, pytest.approx(expected)]
    opened = f"import cosify; print(float(cosify.load('ORG/net@{first}').fc.kappa))"
    assert float(run_python("-c", opened, **environment)) == pytest.approx(expected)
    with pytest.raises(AssertionError, match=r"RevisionNotFoundError|Revision Not Found"):
        run_python("-c", kappa.format("@nowhere"), **environment)


def test_commands_train_on_a_published_backbone(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    upload(hub, folder, tmp_path / "cache")
    common = ["hf-hub:ORG/net", "digits", "--limit-train", "200", "--image-size", "32"]
    environment = {**hub.environment(str(tmp_path / "cache")), "OMP_NUM_THREADS": "1"}
    for name, more in (("finetune", ["--epochs", "1"]), ("probe", [])):
        output = tmp_path / name
        run_python("-m", "cosify", name, *common, *more, "--output", str(output), **environment)
        assert json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])
        environment["HF_HUB_OFFLINE"] = "1"  # what the first has downloaded serves the second
    with pytest.raises(AssertionError, match=r"ORG/other is neither a folder here nor .*RepositoryNotFoundError"):
        run_python("-m", "cosify", "finetune", "hf-hub:ORG/other", "digits", **hub.environment(str(tmp_path / "cache")))


def test_labels_that_differ_stop_the_upload(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["fc.weight"][:2] *= 5  # inert for a cosine head, not for stock readers
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"timm alone gives \d+ of 32 images .* another label than the model"):
        push(folder, REPO, dry_run=True)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks model\.safetensors"):
        push(folder, REPO, dry_run=True)
