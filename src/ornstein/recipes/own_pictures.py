"""Training `text-to-image` on a folder of one's own pictures: what is read, whether the first stage does for it, what is shown."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import DataError, TrainingError
from ornstein.networks.autoencoder import DOWNSAMPLING
from ornstein.training import Optimization

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.core.checkpoint import Checkpoint
    from ornstein.data.prepared_pictures import PreparedPictures
    from ornstein.language import UniversalSentenceEncoder
    from ornstein.networks.dit import DiTConfig
    from ornstein.recipes.text_to_image import TextToImageRecipe

#: By how many dB less than the shipped autoencoder on scenes one's own pictures may come back before it is fine-tuned.
MARGIN_DB = 1.0
_MEASURED, _SCENES, _SCENE_SEED = 500, 200, 3_000_000
_HELD_OUT_SHARE = 10
_PREVIEWS, _SHEET = 8, 64


def read_pictures(
    folder: Path, out: Path, network: DiTConfig, encoder: UniversalSentenceEncoder, *, resume: bool
) -> PreparedPictures:
    """Read the folder; `out/data-report.json` lists what was skipped, `out/previews/data.png` shows what was not.

    Raises:
        DataError: nothing in it can be used. TrainingError: to resume, it must be what it was.
    """
    from ornstein.data.pictures import contact_sheet, spread
    from ornstein.data.prepared_pictures import prepare_pictures, summary
    from ornstein.training import track

    pictures = prepare_pictures(folder, out / "cache", network.latent_size * DOWNSAMPLING, track)
    cut = sum(encoder.count_pieces(caption) > network.text_length for caption in pictures.captions)
    report = {**pictures.report(), "captions_cut": cut, "most_word_pieces": network.text_length}
    path = out / "data-report.json"
    if resume:
        _require_unchanged(path, report)
    if _is_main():
        _write_json(path, report)
    for line in summary(report):
        say(line)
    if cut:
        say(f"{cut} captions are longer than the {network.text_length} word pieces that the network reads: the rest is cut off")
    say(f"all that was skipped, with reasons: {path}")
    pictures.require_some()
    if _is_main():
        (out / "previews").mkdir(exist_ok=True)
        contact_sheet(pictures.pixels[spread(len(pictures), _SHEET)]).save(out / "previews" / "data.png")
    return pictures


def fitting_autoencoder(
    pictures: PreparedPictures, stage: Checkpoint, recipe: TextToImageRecipe, out: Path, *, resume: bool
) -> tuple[Checkpoint, list[str]]:
    """The autoencoder to train over: `stage`, or where that falls short, `stage` fine-tuned in `out/autoencoder`.

    Returns:
        It, and sentences that say what was measured, for the card.
    """
    found = _measured_stage(pictures, stage, out / "first-stage.json")
    short = found["short_by_db"]
    lacking = f"{short:.1f} dB more" if short > 0 else "no more"
    sentence = (
        f"The autoencoder {recipe.autoencoder!r} gives these pictures back with a PSNR of {_interval(found)};"
        f" the shipped one reaches {found['scenes_psnr_db']:.1f} dB, {lacking}, on {_SCENES} fresh scenes of its own kind."
    )
    say(sentence)
    if recipe.finetune_autoencoder == "no" or (recipe.finetune_autoencoder == "auto" and short <= MARGIN_DB):
        return stage, [sentence]
    tuned, gained = _fine_tuned(pictures, stage, recipe, out, found, resume=resume)
    say(gained)
    return tuned, [sentence, gained]


def _fine_tuned(
    pictures: PreparedPictures, stage: Checkpoint, recipe: TextToImageRecipe, out: Path, found: dict[str, Any], *, resume: bool
) -> tuple[Checkpoint, str]:
    """The fine-tuned autoencoder, and what that gave on pictures that it was not tuned on; also written to `first-stage.json`."""
    from ornstein.core.checkpoint import read_checkpoint
    from ornstein.images import load_autoencoder, reconstruction_psnr
    from ornstein.recipes.autoencoder import fine_tune_autoencoder
    from ornstein.training import RunFolder

    trained, held_out = _split(pictures)
    tested = held_out if len(held_out) else trained
    steps, folder = recipe.autoencoder_steps, out / "autoencoder"
    say(f"fine-tuning it for {steps} steps on {len(trained)} of the pictures, in {folder}")
    fine_tune_autoencoder(
        stage,
        _optimization(steps, recipe.optimization),
        folder,
        pixels=_Rows(pictures.pixels, trained),  # type: ignore[arg-type]
        shown=pictures.pixels[tested[:16]],
        data_fingerprint=pictures.fingerprint,
        card=f"Fine-tuned from the weights of the autoencoder {stage.fingerprint} on {len(trained)} pictures of the folder"
        f" {pictures.report()['folder']} (data fingerprint {pictures.fingerprint}).",
        resume=resume and RunFolder(folder).newest() is not None,
    )
    tuned = read_checkpoint(folder / "model", expect_kind="autoencoder")
    before, after = (_summary(reconstruction_psnr(load_autoencoder(s), pictures.pixels[tested])) for s in (stage, tuned))
    if _is_main():
        tuning = {"fingerprint": tuned.fingerprint, "held_out": len(held_out), "before": before, "after": after}
        _write_json(out / "first-stage.json", {**found, "fine_tuned": tuning})
    left = found["scenes_psnr_db"] - after["psnr_db"]
    where = (
        f"{len(held_out)} held-out pictures" if len(held_out) else "those same pictures (fewer than ten leave none to hold out)"
    )
    verdict = f"{left:.1f} dB are still missing" if left > MARGIN_DB else "that is enough"
    return tuned, (
        f"Fine-tuned for {steps} steps on {len(trained)} of them it went from {_interval(before)} to {_interval(after)}"
        f" on {where}: {verdict}."
    )


def stage_is_under_way(out: Path) -> bool:
    """Whether a run was stopped while it fine-tuned the autoencoder: then there is no checkpoint of its own yet to resume."""
    from ornstein.training import RunFolder

    return RunFolder(out).newest() is None and RunFolder(out / "autoencoder").newest() is not None


def preview_cases(
    pictures: PreparedPictures, encoder: UniversalSentenceEncoder, length: int
) -> tuple[list[str], NDArray[np.uint8]]:
    """Up to eight different captions, evenly from all in alphabetical order, and the first picture of each."""
    from ornstein.data.pictures import spread

    first: dict[str, int] = {}
    for row, caption in enumerate(pictures.captions):
        first.setdefault(caption, row)
    captions = sorted(first)
    chosen = [captions[k] for k in spread(len(captions), _PREVIEWS)]
    return [fitting(caption, encoder, length) for caption in chosen], pictures.pixels[[first[caption] for caption in chosen]]


def fitting(caption: str, encoder: UniversalSentenceEncoder, length: int) -> str:
    """The beginning of a caption that the model reads as a prompt: at most 300 characters and `length` word pieces."""
    from ornstein.language import MAX_CHARACTERS

    caption = caption[:MAX_CHARACTERS]
    while encoder.count_pieces(caption) > length:
        caption = caption[:-1]
    return caption


def card(pictures: PreparedPictures, recipe: TextToImageRecipe, sentences: list[str]) -> str:
    """About data and first stage; nothing is known of the rights in other people's pictures, and nothing is said of them."""
    report = pictures.report()
    mirrored = ", each also mirrored" if recipe.flip else ""
    lines = [
        f"Draws what a sentence says. Trained on {report['pictures']} captioned pictures of the folder {report['folder']}{mirrored}",
        f"({report['different_captions']} different captions; data fingerprint {report['fingerprint']}). Who may use pictures that it draws",
        "depends on the rights in those pictures.",
        *sentences,
    ]
    if recipe.init:
        lines.append(f"It started from the weights of {recipe.init}, whose card says what they were trained on.")
    return "\n".join(lines)


def say(line: str) -> None:
    """A line for the user, on standard error; once, however many processes there are."""
    if _is_main():
        print(line, file=sys.stderr, flush=True)


class _Rows:
    """Some rows of an array on disk, read one by one."""

    def __init__(self, array: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        self._array, self._rows = array, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        picture: NDArray[np.uint8] = self._array[self._rows[row]]
        return picture


def _split(pictures: PreparedPictures) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows held out: every tenth picture with its duplicates; none where that leaves less than one."""
    digests = [picture.digest for picture in pictures.listing.pictures]
    number = {digest: k for k, digest in enumerate(dict.fromkeys(digests))}
    held = np.array([number[digest] % _HELD_OUT_SHARE == _HELD_OUT_SHARE - 1 for digest in digests])
    return np.flatnonzero(~held), np.flatnonzero(held)


def _optimization(steps: int, main: Optimization) -> Optimization:
    """A lower rate than from scratch; all that is not about the length of this training is as in the main one."""
    return Optimization(
        steps=steps,
        batch_size=32,
        learning_rate=5e-4,
        warmup_steps=min(20, steps),
        ema_decay=0.99,
        precision=main.precision,
        seed=main.seed,
        log_every=min(main.log_every, 20),
        checkpoint_every=min(main.checkpoint_every, 100),
        preview_every=min(main.preview_every, 100),
    )


def _measured_stage(pictures: PreparedPictures, stage: Checkpoint, path: Path) -> dict[str, Any]:
    """What `path` says of this data and autoencoder; it is measured first where that is missing. One process measures for all."""
    from ornstein.core.checkpoint import read_checkpoint
    from ornstein.data.pictures import spread
    from ornstein.data.scenes import render, sample_scene
    from ornstein.hub import BUNDLED
    from ornstein.images import load_autoencoder, reconstruction_psnr
    from ornstein.training import main_process_first

    key = {"data_fingerprint": pictures.fingerprint, "autoencoder": stage.fingerprint}
    with main_process_first():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if {name: found[name] for name in key} == key and {"psnr_db", "n", "scenes_psnr_db", "short_by_db"} <= found.keys():
                return dict(found)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not measured yet, or cut short
        say("measuring what the autoencoder makes of these pictures")
        side = pictures.pixels.shape[1]
        scenes = np.stack([render(sample_scene(i, seed=_SCENE_SEED), side) for i in range(_SCENES)])
        own = float(reconstruction_psnr(load_autoencoder(read_checkpoint(BUNDLED / "autoencoder")), scenes).mean())
        rows = spread(len(pictures), _MEASURED)
        values = reconstruction_psnr(load_autoencoder(stage), _Rows(pictures.pixels, rows))  # type: ignore[arg-type]
        found = {**key, **_summary(values), "scenes_psnr_db": own, "short_by_db": own - float(values.mean())}
        _write_json(path, found)
        return found


def _summary(values: NDArray[np.float64]) -> dict[str, Any]:
    error = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    mean = float(values.mean())
    return {"psnr_db": mean, "interval95": [mean - error, mean + error], "n": len(values)}


def _interval(found: dict[str, Any]) -> str:
    low, high = found["interval95"]
    return f"{found['psnr_db']:.1f} dB ({low:.1f} – {high:.1f}, n = {found['n']})"


def _require_unchanged(path: Path, report: dict[str, Any]) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = before["fingerprint"] != report["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # the checkpoint's own hyper-parameters are compared later
    if changed:
        raise TrainingError(
            f"cannot resume in {path.parent}: the pictures or captions of {report['folder']} have changed since"
            f" ({report['pictures']} with fingerprint {report['fingerprint']}, were {before['pictures']} with {before['fingerprint']});"
            " put them back as they were, or start anew in another folder"
        )


def _write_json(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {(error.strerror or str(error)).lower()}; choose another folder") from error


def _is_main() -> bool:
    import torch
    from accelerate import PartialState

    return bool(PartialState(cpu=not torch.accelerator.is_available()).is_main_process)
