"""`cosify verify`, and the converters of insightface's files."""

import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cosify
from cosify.__main__ import main
from cosify.commands import convert_bin, convert_rec, verify
from cosify.data import load_splits, read_pairs
from cosify.evaluation import Verification, verify_pairs
from cosify.evaluation.json_records import from_json
from cosify.models.network_identity import model_digest
from tests.data.face_pictures import bin_file, files, png
from tests.data.records import insightface

MODEL = "resnet18_cifar.cos_60_cifar100"


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a .bin file of 40 pairs; a pair of one person is a picture with a part of another one in it."""
    random, pictures, same = np.random.default_rng(0), [], np.tile([True, False], 20)
    for flag in same:
        one = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        other = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        if flag:
            other[:24] = one[:24]
        for pixels in (one, other):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            pictures.append(file.getvalue())
    return bin_file(tmp_path_factory.mktemp("bin") / "pairs.bin", pictures, same.tolist())


@pytest.mark.slow
def test_a_bin_file_and_its_parquet_give_one_result(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    converted = tmp_path / "pairs.parquet"
    main(["convert-bin", str(encoded), str(converted)])
    records = []
    for data in (encoded, converted):
        words = ["verify", MODEL, str(data), "--output", str(tmp_path / data.suffix[1:])]
        monkeypatch.setattr(sys, "argv", ["cosify", *words])
        main(words)
        record = json.loads((tmp_path / data.suffix[1:] / "verification.json").read_text())
        assert record["command"] == " ".join(["cosify", *words])
        records.append(record)
    first, second = records
    assert first["verification"] == second["verification"]
    assert first["model"] == model_digest(cosify.load(MODEL))
    assert (first["data"], first["num_pictures"], first["arguments"]["pairs"]) == ("pairs.bin", 80, None)
    found = from_json(Verification, first["verification"])
    assert (found.num_same, found.num_different, found.tar) == (20, 20, {})
    assert found.auc > 0.9
    assert first["exact_thresholds"]["accuracy"] > 0.8
    assert sorted(file.name for file in (tmp_path / "bin").iterdir()) == ["verification.json", "verification.png"]
    said = " ".join(capsys.readouterr().out.split())
    for expected in (
        "20 of one person, 20 of two; 80 pictures",
        f"{found.accuracy:.2%} ± {found.standard_error:.2%}, mean and standard error",
        f"{found.deviation:.2%}, of 10",
        f"{found.auc:.4f}",
        f"{found.eer:.2%}",
    ):
        assert expected in said


@pytest.mark.parametrize(
    ("data", "pairs", "title"),
    [("faces.bin", None, "faces.bin"), ("lfw", "lfw", "lfw"), ("cfp", "cfp-fp", "cfp-fp"), ("a", "b/c.csv", "a, c")],
)
def test_results_are_named_by_their_list_as_well(data: str, pairs: str | None, title: str) -> None:
    assert verify.title_of(data, pairs) == title


def test_true_accepts_come_back_from_json_by_their_rates() -> None:
    same = np.tile([True, False], 500)
    found = verify_pairs(np.random.default_rng(0).normal(same, 0.5), same)
    assert list(found.tar) == [0.01]
    assert from_json(Verification, json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.slow
def test_earlier_results_and_foreign_files_stay(encoded: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"model": MODEL, "data": str(encoded), "output": str(tmp_path)}
    (tmp_path / "verification.png").write_text("mine")
    with pytest.raises(FileExistsError, match="which this command has not written"):
        verify.main(verify.VerifyArguments(**arguments, overwrite=True))
    (tmp_path / "verification.png").unlink()
    verify.main(verify.VerifyArguments(**arguments))
    with pytest.raises(FileExistsError, match="holds an earlier result"):
        verify.main(verify.VerifyArguments(**arguments))
    verify.main(verify.VerifyArguments(**arguments, overwrite=True))


def test_smoke(tmp_path: Path) -> None:
    verify.main(verify.VerifyArguments(smoke=True, output=str(tmp_path)))
    assert json.loads((tmp_path / "verification.json").read_text())["verification"]["num_same"] == 50


def test_what_cannot_be_is_said_before_the_pass(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cosify.evaluation.pair_cosines", None)
    for words, message in (
        (["verify"], "DATA is missing, expected MODEL DATA; write cosify verify MODEL DATA"),
        (["verify", "", str(encoded)], "model is empty, expected text"),
        (["verify", MODEL, str(encoded), "--folds", "7"], "40 pairs came, expected a number that 7 folds"),
        (
            ["verify", MODEL, str(encoded), "--folds", "1"],
            "folds is 1, expected at least 2, or nothing; change --folds",
        ),
        (["verify", MODEL, str(encoded), "--pairs", "lfw"], "holds pairs of its own, expected none; drop --pairs"),
        (["verify", MODEL, "nowhere"], "data 'nowhere' is no folder, .bin or .parquet file, expected one"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        said = str(caught.value) + capsys.readouterr().err
        assert message in said, words
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="verify was started on 2 processes, expected one; run it without a launcher"):
        verify.main(verify.VerifyArguments(smoke=True))
    assert list(tmp_path.iterdir()) == []


def test_pairs_of_one_kind_in_a_fold_are_refused(tmp_path: Path) -> None:
    file = bin_file(tmp_path / "x.bin", [png(seed) for seed in range(40)], [True] * 10 + [False] * 10)
    with pytest.raises(ValueError, match="fold 1 of 10 has 2 pairs of one person among 2, expected both kinds"):
        verify.main(verify.VerifyArguments(model=MODEL, data=str(file), output=str(tmp_path / "o")))


def test_convert_bin_replaces_its_own_files_alone(
    encoded: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "made" / "x.parquet"
    with caplog.at_level("INFO", "cosify"):
        convert_bin.main(convert_bin.ConvertBinArguments(str(encoded), str(output)))
    assert f"{output}: 40 pairs, 20 of one person; pictures of 32x32 pixels" in caplog.text
    assert len(read_pairs(output)) == 40
    with pytest.raises(FileExistsError, match="exists, expected a new file; choose another, or pass --overwrite"):
        convert_bin.main(convert_bin.ConvertBinArguments(str(encoded), str(output)))
    convert_bin.main(convert_bin.ConvertBinArguments(str(encoded), str(output), overwrite=True))
    output.write_bytes(b"mine")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        convert_bin.main(convert_bin.ConvertBinArguments(str(encoded), str(output), overwrite=True))
    assert output.read_bytes() == b"mine"


def test_convert_bin_takes_no_program(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    file = bin_file(tmp_path / "x.bin", [png(0), png(1)], [Runs()])  # type: ignore[list-item]
    for bad, message in (
        (file, "nothing of it was run"),
        (bin_file(tmp_path / "y.bin", [b"x", b"y"], [True]), "picture"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_bin.main(convert_bin.ConvertBinArguments(str(bad), str(tmp_path / "o.parquet")))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.bin", "y.bin"]
    with pytest.raises(ValueError, match=r"write cosify convert-bin FILE.bin OUT.parquet"):
        convert_bin.main(convert_bin.ConvertBinArguments(str(file), str(tmp_path / "o")))


def test_convert_rec(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = insightface(tmp_path / "rec", [png(seed) for seed in range(12)], [0] * 6 + [2] * 6)
    output = tmp_path / "out"
    with caplog.at_level("INFO", "cosify"):
        convert_rec.main(convert_rec.ConvertRecArguments(str(folder), str(output)))
    assert f"{output}: 12 pictures of 2 people in 1 files" in caplog.text
    assert caplog.text.count("1 of 3 classes have no picture") == 1
    assert [file.name for file in output.iterdir()] == ["train-00000-of-00001.parquet"]
    found = load_splits(f"{output}:train")
    assert (len(found.train) + len(found.test), found.label_names) == (12, ("0", "2"))
    with pytest.raises(FileExistsError, match="holds an earlier result; choose another folder, or pass --overwrite"):
        convert_rec.main(convert_rec.ConvertRecArguments(str(folder), str(output)))
    convert_rec.main(convert_rec.ConvertRecArguments(str(folder), str(output), overwrite=True))
    files(output, ["mine.png"])
    with pytest.raises(FileExistsError, match=r"holds \['mine.png'\], expected a new or empty folder; choose another"):
        convert_rec.main(convert_rec.ConvertRecArguments(str(folder), str(output), overwrite=True))
    with pytest.raises(FileExistsError, match="is a file or link, expected a folder to write"):
        convert_rec.main(convert_rec.ConvertRecArguments(str(folder), str(output / "mine.png")))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "rec"]


def test_convert_rec_leaves_nothing_of_a_damaged_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = insightface(tmp_path / "rec", [png(0), png(1)], [0, 1])

    def until_the_disk_is_full(_: Any) -> Iterator[bytes]:
        yield png(0)
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr("cosify.data.recordio.RecordFile.pictures", until_the_disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        convert_rec.main(convert_rec.ConvertRecArguments(str(folder), str(tmp_path / "out")))
    assert [each.name for each in tmp_path.iterdir()] == ["rec"]
