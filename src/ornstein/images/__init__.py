"""Pictures: the autoencoder, latent text-to-image, small pixel models, and the frozen judge of what they show."""

from ornstein.images.autoencoding import autoencoder_loss, psnr, to_pixels, to_tensor
from ornstein.images.editing import DrawingSettings, image_to_image, inpaint, interpolate
from ornstein.images.judge import EmojiJudge, Verdict
from ornstein.images.pixel_models import GAN, VAE, PixelDiffusion, PixelDiffusionConfig, PixelModel
from ornstein.images.text_to_image import SamplerName, TextToImageConfig, TextToImagePipeline
from ornstein.images.weights import load_autoencoder, load_strictly

__all__ = [
    "GAN",
    "VAE",
    "DrawingSettings",
    "EmojiJudge",
    "PixelDiffusion",
    "PixelDiffusionConfig",
    "PixelModel",
    "SamplerName",
    "TextToImageConfig",
    "TextToImagePipeline",
    "Verdict",
    "autoencoder_loss",
    "image_to_image",
    "inpaint",
    "interpolate",
    "load_autoencoder",
    "load_strictly",
    "psnr",
    "to_pixels",
    "to_tensor",
]
