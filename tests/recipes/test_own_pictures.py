"""A folder of one's own, tiny: read, the first stage measured and fine-tuned, trained, resumed, drawn from."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ornstein
from ornstein.cli import main
from ornstein.core.checkpoint import read_checkpoint
from ornstein.core.errors import CheckpointError, DataError, TrainingError
from ornstein.data.picture_folder import Listed, Listing
from ornstein.data.pictures import ENLARGED, read_square
from ornstein.data.prepared_pictures import PreparedPictures
from ornstein.language import UniversalSentenceEncoder
from ornstein.networks.dit import DiTConfig
from ornstein.recipes import own_pictures
from ornstein.recipes.text_to_image import TextToImageRecipe, hyper_parameters, train_text_to_image
from ornstein.training import Optimization

SMALL = DiTConfig(latent_size=4, patch_size=2, width=32, depth=1, heads=2)
LONG = " ".join(f"word{k}" for k in range(40))


def _recipe(data: Path, **changes: object) -> TextToImageRecipe:
    optimization = Optimization(
        steps=4,
        batch_size=4,
        learning_rate=1e-3,
        warmup_steps=1,
        log_every=1,
        checkpoint_every=2,
        preview_every=4,
        precision="fp32",
    )
    recipe = TextToImageRecipe(network=SMALL, optimization=optimization, data=data, autoencoder_steps=8)
    return replace(recipe, **changes)  # type: ignore[arg-type]


def _mosaic(path: Path, seed: int) -> None:
    """Coloured squares, each 8 pixels of 32: no emoji scene looks like that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(cells.repeat(16, 0).repeat(16, 1)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "mosaics"
    for k in range(22):
        _mosaic(folder / f"pattern_{'abcdefghij'[k % 10]}" / f"{k}.png", k)
    _mosaic(folder / "long" / "1.png", 99)
    (folder / "long" / "1.txt").write_text(LONG)
    (folder / "pattern_a" / "broken.png").write_bytes(b"\x89PNG\r\n")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    out = tmp_path_factory.mktemp("run") / "mine"
    train_text_to_image(_recipe(folder), out)
    return out


def _weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def test_from_a_folder_to_pictures(run: Path, tmp_path: Path) -> None:
    """The finished model carries its own first stage, wherever it is put."""
    shutil.copytree(run / "model", tmp_path / "elsewhere")
    with pytest.raises(SystemExit) as stop:
        main(
            ["sample", "pattern a", "--checkpoint", str(tmp_path / "elsewhere"), "--steps", "2", "--out", str(tmp_path / "a.png")]
        )
    assert not stop.value.code
    assert Image.open(tmp_path / "a.png").size == (32, 32)


def test_what_was_skipped_is_listed(run: Path) -> None:
    report = json.loads((run / "data-report.json").read_text())
    assert (report["pictures"], report["skipped"], report["captions_cut"]) == (23, 1, 1)
    assert report["skipped_files"][0]["file"] == "pattern_a/broken.png"
    assert report["captions_from"] == {"sub-folder": 22, ".txt": 1}


def test_the_sheets_show_the_data_and_each_drawing_below_its_picture(run: Path, folder: Path) -> None:
    assert Image.open(run / "previews" / "data.png").size == (8 * 32, 3 * 32)
    sheet = np.asarray(Image.open(run / "previews" / "step-0000004.png"))
    assert sheet.shape == (2 * 32, 8 * 32, 3)
    # Eight of eleven captions, evenly in alphabetical order.
    files = [path for letter in "abcefgij" for path in (folder / f"pattern_{letter}").glob("[0-9]*.png")]
    known = {read_square(path, 32)[0].tobytes(): path.parent.name for path in files}
    shown = [known[sheet[:32, 32 * k : 32 * (k + 1)].tobytes()] for k in range(8)]
    assert shown == [f"pattern_{letter}" for letter in "abcefgij"]


def test_an_autoencoder_that_falls_short_is_fine_tuned_and_says_by_how_many_db(run: Path) -> None:
    found = json.loads((run / "first-stage.json").read_text())
    assert found["short_by_db"] > own_pictures.MARGIN_DB
    tuned = found["fine_tuned"]
    assert tuned["after"]["psnr_db"] > tuned["before"]["psnr_db"] + 0.5
    assert (tuned["before"]["n"], found["n"]) == (2, 23)
    model = read_checkpoint(run / "model")
    assert (
        model.config["autoencoder_fingerprint"]
        == tuned["fingerprint"]
        == read_checkpoint(run / "model" / "autoencoder").fingerprint
    )
    card = (run / "model" / "card.md").read_text(encoding="utf-8")
    for said in (f"{found['psnr_db']:.1f} dB", f"{tuned['after']['psnr_db']:.1f} dB", f"{found['short_by_db']:.1f} dB more"):
        assert said in card


def test_the_card_names_the_folder_and_claims_nothing(run: Path, folder: Path) -> None:
    card = (run / "model" / "card.md").read_text(encoding="utf-8")
    assert "23 captioned pictures of the folder mosaics" in card
    assert json.loads((run / "data-report.json").read_text())["fingerprint"] in card
    for text in (card, (run / "model" / "config.json").read_text(), (run / "data-report.json").read_text()):
        assert str(folder.parent) not in text
    assert "CC BY-SA" not in card


def _stopped(run: Path, out: Path, *, in_the_first_stage: bool) -> Path:
    """A copy of the run as if it had been killed after its second step (or in the middle of fine-tuning)."""
    shutil.copytree(run, out)
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints" / "step-0000004")
    if in_the_first_stage:
        shutil.rmtree(out / "checkpoints" / "step-0000002")
        shutil.rmtree(out / "autoencoder" / "model")
        shutil.rmtree(out / "autoencoder" / "checkpoints" / "step-0000008")
    return out


@pytest.mark.parametrize("in_the_first_stage", [False, True])
def test_stopped_and_resumed_equals_uninterrupted(run: Path, folder: Path, tmp_path: Path, in_the_first_stage: bool) -> None:
    out = _stopped(run, tmp_path / "again", in_the_first_stage=in_the_first_stage)
    if in_the_first_stage:
        with pytest.raises(TrainingError, match="already holds a training run"):
            train_text_to_image(_recipe(folder), out)
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "pattern_b" / "1.png").rename(moved / "pattern_b" / "renamed.png")
    train_text_to_image(_recipe(moved), out, resume=True)
    assert _weights(out) == _weights(run)


def test_changed_data_are_not_resumed_with(run: Path, folder: Path, tmp_path: Path) -> None:
    out = _stopped(run, tmp_path / "again", in_the_first_stage=False)
    other = shutil.copytree(folder, tmp_path / "mosaics")
    (other / "pattern_c").rename(other / "pattern_x")
    with pytest.raises(TrainingError, match=r"have changed since \(23 with fingerprint .*, were 23 with"):
        train_text_to_image(_recipe(other), out, resume=True)
    (out / "data-report.json").unlink()
    with pytest.raises(TrainingError, match="data_fingerprint"):
        train_text_to_image(_recipe(other, finetune_autoencoder="no"), out, resume=True)
    assert not (out / "model").exists()


def test_pictures_that_the_autoencoder_knows_leave_it_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, color in enumerate(((200, 40, 40), (40, 40, 200), (250, 250, 250))):
        (tmp_path / "flat" / f"color {k}").mkdir(parents=True)
        Image.new("RGB", (64, 64), color).save(tmp_path / "flat" / f"color {k}" / "1.png")
    train_text_to_image(_recipe(tmp_path / "flat", flip=True), tmp_path / "run")
    assert not (tmp_path / "run" / "autoencoder").exists()
    assert not (tmp_path / "run" / "model" / "autoencoder").exists()
    said = capsys.readouterr().err
    assert "3 pictures with 3 different captions (3 from sub-folder)" in said
    assert "PSNR of" in said
    assert "no more" in said
    settings = read_checkpoint(tmp_path / "run" / "model").provenance["hyper_parameters"]
    assert settings["flip"] is True
    assert settings.keys().isdisjoint({"data", "scenes", "pair_share", "init"})


def test_four_pictures_are_learnt_by_heart_each_under_its_own_caption(tmp_path: Path) -> None:
    """The whole road, judged by what is drawn: read, encoded, learnt, drawn from words, decoded."""
    colors = {"a red wall": (214, 66, 62), "green grass": (60, 160, 70), "the blue sea": (60, 110, 210), "snow": (250, 250, 248)}
    (tmp_path / "flat").mkdir()
    for k, (caption, color) in enumerate(colors.items()):
        Image.new("RGB", (64, 64), color).save(tmp_path / "flat" / f"{k}.png")
        (tmp_path / "flat" / f"{k}.txt").write_text(caption)
    changes = {"steps": 120, "batch_size": 16, "learning_rate": 3e-3, "warmup_steps": 10, "ema_decay": 0.98}
    never = {"preview_every": 1000, "checkpoint_every": 1000}
    optimization = replace(_recipe(tmp_path).optimization, **changes, **never)  # type: ignore[arg-type]
    recipe = _recipe(tmp_path / "flat", network=replace(SMALL, width=64), optimization=optimization)
    train_text_to_image(recipe, tmp_path / "run")
    pipeline = ornstein.load(tmp_path / "run", expect="text-to-image")
    drawn = np.stack(pipeline(list(colors), num_inference_steps=20, guidance_scale=1.0)).mean((1, 2))  # type: ignore[operator]
    distance = np.abs(drawn[:, None] - np.array(list(colors.values()))[None]).mean(-1)
    assert distance.argmin(1).tolist() == [0, 1, 2, 3]
    assert distance.diagonal().max() < 25


def test_weights_of_another_model_are_where_it_starts(run: Path, folder: Path, tmp_path: Path) -> None:
    still = replace(_recipe(folder).optimization, steps=1, learning_rate=1e-12)
    stage = str(run / "model" / "autoencoder")
    recipe = _recipe(folder, init=str(run), autoencoder=stage, finetune_autoencoder="no", optimization=still)
    train_text_to_image(recipe, tmp_path / "run")
    first, then = (read_checkpoint(out / "model").tensors() for out in (run, tmp_path / "run"))
    for name, value in first.items():
        np.testing.assert_allclose(then[name], value, atol=1e-6)
    provenance = read_checkpoint(tmp_path / "run" / "model").provenance
    assert provenance["hyper_parameters"]["init"] == read_checkpoint(run / "model").fingerprint
    with pytest.raises(CheckpointError, match="its autoencoder is .* --autoencoder"):
        train_text_to_image(replace(recipe, autoencoder="autoencoder"), tmp_path / "other")
    with pytest.raises(CheckpointError, match="its network is"):
        train_text_to_image(replace(recipe, network=replace(SMALL, depth=2)), tmp_path / "other")
    with pytest.raises(CheckpointError, match="its prediction is"):
        train_text_to_image(replace(recipe, prediction="epsilon"), tmp_path / "other")


def test_prompts_that_are_too_long_are_shortened_until_the_model_takes_them(run: Path) -> None:
    pipeline, encoder = ornstein.load(run, expect="text-to-image"), UniversalSentenceEncoder()
    for caption in (LONG, "猫" * 400, "x" * 1000, "short"):
        prompt = own_pictures.fitting(caption, encoder, 24)
        pipeline.check_prompts([prompt])
        assert caption.startswith(prompt)
        assert prompt == caption or encoder.count_pieces(caption[: len(prompt) + 1]) > 24 or len(prompt) == 300


def test_held_out_pictures_have_no_duplicate_among_the_others() -> None:
    listing = Listing(Path(), [Listed(f"{k}.png", "x", ".txt", str(k // 2)) for k in range(60)])
    trained, held = own_pictures._split(PreparedPictures(listing, np.zeros((60, 8, 8, 3), np.uint8), Counter()))
    assert sorted([*trained, *held]) == list(range(60))
    assert {k // 2 for k in held} == {9, 19, 29}
    assert not {k // 2 for k in held} & {k // 2 for k in trained}


def test_options_about_a_folder_need_one() -> None:
    for changes in ({"flip": True}, {"finetune_autoencoder": "no"}, {"autoencoder_steps": 5}):
        with pytest.raises(DataError, match=r"--data FOLDER"):
            replace(TextToImageRecipe(), **changes)  # type: ignore[arg-type]
    assert hyper_parameters(TextToImageRecipe()).keys().isdisjoint({"flip", "data", "init"})


def test_a_folder_with_nothing_to_learn_from_is_one_sentence_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"")
    for words in (
        ["train", "text-to-image", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")],
        ["data", "inspect-pictures", str(tmp_path / "data")],
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("error: no picture in ")
        assert "has no caption" in last
    assert json.loads((tmp_path / "run" / "data-report.json").read_text())["skipped"] == 1


def test_inspecting_pictures_prints_what_training_would_report(
    folder: Path, tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["data", "inspect-pictures", str(folder), "--json", "--sheet", str(tmp_path / "sheet.png")])
    assert not stop.value.code
    shown, written = json.loads(capsys.readouterr().out), json.loads((run / "data-report.json").read_text())
    assert {name for name, value in written.items() if value != shown.get(name)} == {
        "captions_cut",
        "most_word_pieces",
        "remarks",
    }
    assert shown["remarks"] == {ENLARGED: 23}  # to 128 pixels, which the tiny model's are not
    assert Image.open(tmp_path / "sheet.png").size == (8 * 128, 3 * 128)
    with pytest.raises(SystemExit):
        main(["data", "inspect-pictures", str(folder)])
    assert "pattern_a/broken.png is no picture in a format" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["data", "inspect-pictures", str(folder), "--sheet", str(tmp_path / "sheet.jpg")])
    assert stop.value.code == 2
