from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ornstein.cli import COMMANDS, main
from ornstein.commands.train import RECIPES
from ornstein.hub import BUNDLED


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command line."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def assert_one_clear_line(code: int, err: str, *expected: str) -> None:
    assert code == 2
    assert "Traceback" not in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for text in expected:
        assert text in err


def test_overview_names_every_command_and_imports_no_torch() -> None:
    code = "import sys; from ornstein.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert f"  {name}" in done.stdout


@pytest.mark.parametrize(
    "command", [["sample"], ["evaluate"], ["compare"], ["demo"], ["doctor"], ["data", "generate"], ["data", "inspect"]]
)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert "usage: ornstein" in out


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_recipe_shows_its_hyper_parameters(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    code, out, _ = run(capsys, "train", recipe, "--help")
    assert code == 0
    for option in ("--optimization.steps", "--optimization.learning-rate", "--resume", "--out"):
        assert option in out


def test_unknown_names_offer_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "smaple", "x")
    assert_one_clear_line(code, err, "unknown command 'smaple'", "'sample'")
    code, _, err = run(capsys, "train", "text2image")
    assert_one_clear_line(code, err, "unknown recipe 'text2image'", "'text-to-image'")
    code, _, err = run(capsys, "sample", "an apple", "--checkpoint", "text-to-imgae")
    assert_one_clear_line(code, err, "text-to-imgae", "text-to-image")
    code, _, err = run(capsys, "evaluate", "modular-tabletop", "--suite", "pik")
    assert_one_clear_line(code, err, "unknown suite 'pik'", "'pick'")
    code, _, err = run(capsys, "data", "generat")
    assert_one_clear_line(code, err, "'generate'")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sample apple --stepps 3", ["--stepps", "did you mean --steps", "ornstein sample --help"]),
        ("sample", ["PROMPT missing"]),
        ("sample apple --steps many", ["--steps", "'many'"]),
        ("sample apple --sampler dim", ["'dim'", "'ddim'"]),
        ("sample apple --eta 0.5 --sampler dpm++", ["eta", "DDIM"]),
        ("sample apple --num", ["--num"]),
        ("sample apple --mask m.png", ["--mask", "--image"]),
        ("sample apple --strength 0.5", ["--strength", "--image"]),
        ("sample apple --frames 4", ["--frames", "--to"]),
        ("sample apple --to pear --num 2", ["--to", "--num"]),
        ("sample apple --batch 0", ["--batch", "at least 1"]),
        ("sample apple --batch 2 --to pear", ["--batch", "--to"]),
        ("sample apple --num 100001", ["--num", "100,000", "100001"]),
        ("sample apple --guidance nan --steps 1", ["guidance", "finite", "nan"]),
        ("sample apple --steps 0", ["steps", "between 1 and 1000", "0"]),
        ("sample apple --interval 0.2 0.8", ["--interval", "0.2"]),
        ("sample apple --interval 500 100", ["LOW HIGH in time steps", "(500, 100)"]),
        ("sample apple --show-steps film.mp4", ["--show-steps", ".gif"]),
        ("sample apple --show-steps film.gif --num 2", ["--show-steps", "--num"]),
        ("sample apple --out a.png --show-steps a.png", ["same file"]),
        ("sample --like", ["--like"]),
        ("sample --like nowhere.png", ["no picture nowhere.png"]),
        ("sample --like README.md", ["README.md cannot be read as a picture"]),
        ("sample apple --image nowhere.png", ["no picture nowhere.png"]),
        ("sample apple --image a.png --out a.png", ["--out a.png", "--image"]),
        ("sample apple --image a.png --mask b.png --out b.png", ["--out b.png", "--mask"]),
        ("sample apple --image a.png --show-steps a.png --out c.png", ["--show-steps a.png", "--image"]),
        ("sample apple --image a-1.png --num 3 --out a.png", ["overwrite a-1.png", "--out"]),
        ("sample apple --image README.md", ["README.md cannot be read as a picture"]),
        ("evaluate modular-tabletop --split tset", ["tset", "validation"]),
        ("data inspect", ["FOLDER missing"]),
        ("train autoencoder --optimization.stepz 3", ["--optimization.steps"]),
        ("train text-to-image --network.patch-size 3", ["latent_size", "multiple of 3"]),
        ("train text-to-image --network.width 250", ["width", "multiple"]),
        ("train text-to-image --condition-drop 7", ["condition_drop", "share"]),
        ("train text-to-image --scenes 0", ["scenes", "at least 1"]),
        ("train text-to-image --data nowhere", ["no folder of pictures 'nowhere'"]),
        ("train text-to-image --data README.md", ["README.md", "that is a file"]),
        ("train text-to-image --flip", ["flip", "--data FOLDER"]),
        ("train text-to-image --init emoji-classifier", ["emoji-classifier", "'text-to-image'"]),
        ("data preview-questions --num 0", ["--num must be at least 1"]),
        ("data preview-questions --out sheet.jpg", ["--out takes a .png file"]),
        ("data inspect-pictures nowhere", ["no folder of pictures 'nowhere'"]),
        ("train autoencoder --network.quarter-channels 50", ["quarter_channels", "multiple of 8"]),
        ("train autoencoder --data-seed -1", ["data_seed"]),
        ("train autoencoder --optimization.max-grad-norm inf", ["max_grad_norm"]),
        ("train emoji-classifier --network.num-classes 3", ["num_classes 3"]),
        ("train rt1-tabletop --network.channels 30 60", ["channels[0]"]),
        ("train rt1-tabletop --preview-episodes 0", ["preview_episodes"]),
        ("train rt1-tabletop --network.history 0", ["history"]),
    ],
)
def test_a_mistake_in_an_option_is_one_line(capsys: pytest.CaptureFixture[str], words: str, expected: list[str]) -> None:
    code, out, err = run(capsys, *words.split())
    assert_one_clear_line(code, err, *expected)
    assert out == ""


def test_help_is_printed_and_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "sample", "--help")
    assert (code, err) == (0, "")
    assert "--guidance" in out
    assert "PROMPT" in out


def test_the_systems_own_errors_are_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["sample", "apple", "--checkpoint", "a" * 300], ["sample", "apple", "--out", "a" * 300 + ".png"]):
        code, _, err = run(capsys, *arguments)
        assert_one_clear_line(code, err, "file name too long")
    code, _, err = run(capsys, "sample", "apple", "--checkpoint", "~nobody-of-that-name/model")
    assert_one_clear_line(code, err, "home directory")


def test_bad_prompts_and_places(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "sample", "  ")
    assert_one_clear_line(code, err, "the text is empty")
    code, _, err = run(capsys, "sample", "apple " * 80)
    assert_one_clear_line(code, err, "480 characters")
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "sample", "an apple", "--out", str(tmp_path / "file" / "a.png"))
    assert_one_clear_line(code, err, "cannot write")
    code, _, err = run(capsys, "sample", "an apple", "--out", str(tmp_path / "a.gif"))
    assert_one_clear_line(code, err, ".png")
    code, _, err = run(capsys, "sample", "an apple", "--num", "0")
    assert_one_clear_line(code, err, "--num")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_a_picture_model_is_refused_by_evaluate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "evaluate", "text-to-image", "--out", str(tmp_path / "r"))
    assert_one_clear_line(code, err, "text-to-image is no policy")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_training_into_an_impossible_folder_is_refused_before_anything_is_prepared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recipe: str
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "train", recipe, "--out", str(tmp_path / "file" / "run"))
    assert_one_clear_line(code, err, "cannot train into")
    code, _, err = run(capsys, "train", recipe, "--out", str(tmp_path / "fresh"), "--resume")
    assert_one_clear_line(code, err, "no checkpoint")
    (tmp_path / "old" / "model").mkdir(parents=True)
    code, _, err = run(capsys, "train", recipe, "--out", str(tmp_path / "old"))
    assert_one_clear_line(code, err, "already holds a training run")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "model", "old"]


@pytest.mark.parametrize("harm", ["truncated", "flipped"])
@pytest.mark.parametrize(
    ("name", "command"), [("text-to-image", ["sample", "an apple", "--checkpoint"]), ("modular-tabletop", ["evaluate"])]
)
def test_damaged_weights_are_never_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, command: list[str], harm: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(BUNDLED / name, copy)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if harm == "truncated":
        del content[-1000:]
    else:
        content[len(content) // 2] ^= 4
    weights.write_bytes(content)
    code, _, err = run(capsys, *command, str(copy), "--out", str(tmp_path / "out.png"))
    assert_one_clear_line(code, err, "model.safetensors", "bytes, expected" if harm == "truncated" else "is damaged")
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


def test_a_robot_policy_does_not_draw(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "sample", "an apple", "--checkpoint", "modular-tabletop", "--out", str(tmp_path / "a.png"))
    assert_one_clear_line(code, err, "'modular'", "'text-to-image'")
    assert not list(tmp_path.iterdir())


def test_sample_writes_the_same_picture_for_the_same_seed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        code, out, _ = run(capsys, "sample", "a red apple", "--steps", "2", "--out", str(tmp_path / name), "--json")
        assert code == 0
        record = json.loads(out)
        assert record["files"] == [str(tmp_path / name)]
        assert record["settings"]["steps"] == 2
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_several_pictures_come_with_a_contact_sheet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, _ = run(capsys, "sample", "a red apple", "--steps", "1", "--num", "5", "--out", str(tmp_path / "a.png"))
    assert code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-0.png", "a-1.png", "a-2.png", "a-3.png", "a-4.png", "a.png"]
    sheet, third = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "a-2.png"))
    assert sheet.shape == (256, 512, 3)
    np.testing.assert_array_equal(sheet[:128, 256:384], third)


def test_evaluate_reports_goes_on_and_refuses_to_mix(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["evaluate", "modular-tabletop", "--episodes", "1", "--out", str(tmp_path / "r"), "--json"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    first = json.loads(out)
    assert first["episodes"] == json.loads((tmp_path / "r" / "results.json").read_text())["episodes"] == 1
    code, out, _ = run(capsys, *arguments)
    assert (code, json.loads(out)["per_episode"]) == (0, first["per_episode"])
    code, _, err = run(capsys, *arguments, "--suite", "stack")
    assert_one_clear_line(code, err, "suite: all before, stack now", "--overwrite")


def test_sample_edits_pictures_and_goes_between_prompts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With the shipped model: the kept half is the picture's own, the frames begin and end at the prompts' own pictures."""
    own, edited, film = (tmp_path / f"{name}.png" for name in ("own", "edited", "film"))
    quick = ["--steps", "4", "--seed", "3"]
    assert run(capsys, "sample", "a key", *quick, "--out", str(own))[0] == 0
    mask = Image.fromarray(np.repeat(np.array([255, 0], np.uint8), 64)[:, None].repeat(128, 1))
    mask.save(tmp_path / "mask.png")
    words = ["--image", str(own), "--mask", str(tmp_path / "mask.png"), "--out", str(edited)]
    assert run(capsys, "sample", "a fox", *quick, *words)[0] == 0
    before, after = (np.asarray(Image.open(path)) for path in (own, edited))
    assert np.array_equal(before[64:], after[64:])
    assert not np.array_equal(before[:64], after[:64])
    code, out, _ = run(capsys, "sample", "a key", "--to", "a fox", "--frames", "3", *quick, "--out", str(film), "--json")
    assert code == 0
    record = json.loads(out)
    assert [Path(path).name for path in record["files"]] == ["film.png", "film-0.png", "film-1.png", "film-2.png"]
    assert record["settings"]["to"] == "a fox"
    assert np.array_equal(np.asarray(Image.open(record["files"][1])), before)
    code, _, _ = run(
        capsys, "sample", "a key", "--image", str(own), "--strength", "0.3", *quick, "--num", "2", "--out", str(film)
    )
    assert code == 0


def test_one_batch_can_be_learnt_by_heart_as_a_check(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of its own, so that it is not taken for a model."""
    monkeypatch.chdir(tmp_path)
    options = "--overfit-one-batch --optimization.steps 2 --optimization.batch-size 2"
    code, out, err = run(capsys, "train", "vae", *options.split())
    assert code == 0, err
    assert out.strip().endswith("vae-one-batch/model")
    assert "one batch again and again" in err


def test_lessons_are_drawn_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ornstein.data.questions import Lessons

    sheet = tmp_path / "sheet.png"
    code, out, _ = run(capsys, "data", "preview-questions", "--out", str(sheet), "--num", "3", "--seed", "4", "--json")
    assert code == 0
    expected = [[question.text for question in Lessons(seed=4).at(k).questions] for k in range(3)]
    assert [[one["question"] for one in lesson] for lesson in json.loads(out)["lessons"]] == expected
    assert Image.open(sheet).size == (3 * 128, 128)
    code, out, _ = run(capsys, "data", "preview-questions", "--out", str(sheet), "--num", "2", "--split", "held-out")
    assert code == 0
    assert "picture 2" in out
    assert Lessons(split="held-out").at(1).questions[0].answer in out
