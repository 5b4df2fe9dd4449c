"""Pictures: the autoencoder, latent text-to-image, small pixel models, and the frozen judge of what they show."""

from ornstein.images.alignment import Alignment, Reading, align, read
from ornstein.images.autoencoding import autoencoder_loss, psnr, reconstruction_psnr, to_pixels, to_tensor
from ornstein.images.editing import image_to_image, inpaint, interpolate, times_below
from ornstein.images.features import Extractor, Features
from ornstein.images.few_steps import FewStepPipeline
from ornstein.images.judge import EmojiJudge, Verdict
from ornstein.images.pixel_models import GAN, VAE, PixelDiffusion, PixelDiffusionConfig, PixelModel
from ornstein.images.quality import (
    Copies,
    Estimate,
    ManifoldScores,
    Modes,
    diversity,
    frechet_distance,
    kernel_distance,
    kernel_distance_change,
    manifold_scores,
    modes_found,
    nearest_neighbours,
    usual_bandwidth,
    vendi_score,
)
from ornstein.images.settings import DrawingSettings, SamplerName
from ornstein.images.text_to_image import TextToImageConfig, TextToImagePipeline, first_stage_of
from ornstein.images.weights import load_autoencoder

__all__ = [
    "GAN",
    "VAE",
    "Alignment",
    "Copies",
    "DrawingSettings",
    "EmojiJudge",
    "Estimate",
    "Extractor",
    "Features",
    "FewStepPipeline",
    "ManifoldScores",
    "Modes",
    "PixelDiffusion",
    "PixelDiffusionConfig",
    "PixelModel",
    "Reading",
    "SamplerName",
    "TextToImageConfig",
    "TextToImagePipeline",
    "Verdict",
    "align",
    "autoencoder_loss",
    "diversity",
    "first_stage_of",
    "frechet_distance",
    "image_to_image",
    "inpaint",
    "interpolate",
    "kernel_distance",
    "kernel_distance_change",
    "load_autoencoder",
    "manifold_scores",
    "modes_found",
    "nearest_neighbours",
    "psnr",
    "read",
    "reconstruction_psnr",
    "times_below",
    "to_pixels",
    "to_tensor",
    "usual_bandwidth",
    "vendi_score",
]
