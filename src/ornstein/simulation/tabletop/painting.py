"""What faces, mats and table show, and light and camera as a look has them: written into a compiled model."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.assets import openmoji
from ornstein.simulation.tabletop.look import table_texture
from ornstein.simulation.tabletop.model import (
    FACE_PIXELS,
    FRONT_FOVY,
    FRONT_POSITION,
    FRONT_TARGET,
    MAT_PIXELS,
    TABLE_PIXELS,
    looking,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ornstein.simulation.tabletop.look import Look
    from ornstein.simulation.tabletop.scene import Scene

_FACE, _INK = (250, 249, 244), (28, 30, 36)
_MARGIN = 5
# Quarter turns by which MuJoCo lays each picture of a cube's texture askew, found by looking at digits.
_FACE_TURNS = (1, 3, 2, 0, 1, 1)
# Together a little below 1 on what lies level, so that more light still shows.
_AMBIENT, _HEADLIGHT, _SUN = 0.40, 0.26, 0.26


def textures(scene: Scene) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name in the model and pixels of everything that this scene paints."""
    for slot, block in enumerate(scene.blocks):
        yield f"block{slot}", _cube(block.name)
    for slot, mat in enumerate(scene.mats):
        yield f"mat{slot}", mat_texture(mat.kind, mat.value)
    look = scene.look
    yield "table", table_texture(look.table, look.table_color, look.table_seed, TABLE_PIXELS)


def illuminate(model: Any, look: Look) -> None:
    """Light and front camera of a look."""
    tint = look.brightness * np.array([1 + 0.18 * look.warmth, 1.0, 1 - 0.22 * look.warmth])
    model.vis.headlight.ambient[:] = np.clip(_AMBIENT * tint, 0, 1)
    model.vis.headlight.diffuse[:] = np.clip(_HEADLIGHT * tint, 0, 1)
    sun = model.light("sun").id
    model.light_diffuse[sun] = np.clip(_SUN * tint, 0, 1)
    c, s = np.cos(look.light_angle), np.sin(look.light_angle)
    x, y = -0.25, 0.25
    direction = np.array([c * x - s * y, s * x + c * y, -1.0])
    model.light_dir[sun] = direction / np.linalg.norm(direction)
    position = np.add(FRONT_POSITION, look.camera_shift)
    # Turned sideways it looks past its usual target.
    away = float(np.linalg.norm(np.subtract(FRONT_TARGET, position)))
    target = np.add(FRONT_TARGET, (0.0, away * float(np.tan(look.camera_turn[1])), 0.0))
    axes = np.array(looking(tuple(position), tuple(target))).reshape(2, 3)
    c, s = np.cos(look.camera_turn[0]), np.sin(look.camera_turn[0])
    right, up = c * axes[0] + s * axes[1], c * axes[1] - s * axes[0]
    front = model.camera("front").id
    model.cam_pos[front] = position
    model.cam_quat[front] = _quaternion(np.stack([right, up, np.cross(right, up)], axis=1))
    model.cam_fovy[front] = FRONT_FOVY * look.field_of_view


def _quaternion(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(matrix).as_quat()
    return np.array([w, x, y, z])


@lru_cache(maxsize=512)
def _cube(name: str) -> NDArray[np.uint8]:
    """Six faces, one above the other, in MuJoCo's order (+x, −x, +y, −y, top, bottom): each upright to who stands before it, the top one
    to the front camera.
    """
    face = _on(_FACE, openmoji.drawing(name, FACE_PIXELS - 2 * _MARGIN), FACE_PIXELS)
    return np.concatenate([np.rot90(face, turns) for turns in _FACE_TURNS])


@lru_cache(maxsize=64)
def mat_texture(kind: str, value: str) -> NDArray[np.uint8]:
    """A mat's face, RGB uint8: a digit or a symbol on white within a dark frame, or one colour within a darker one."""
    match kind:
        case "colour":
            color = openmoji.COLORS[value]
            face = np.tile(np.array(color, np.uint8), (MAT_PIXELS, MAT_PIXELS, 1))
            frame = np.array(color) * 0.7
        case "number":
            face, frame = _on((255, 255, 255), digit(value, MAT_PIXELS - 4 * _MARGIN), MAT_PIXELS), np.array(_INK)
        case _:
            face, frame = _on((255, 255, 255), openmoji.drawing(value, MAT_PIXELS - 4 * _MARGIN), MAT_PIXELS), np.array(_INK)
    for side in (np.s_[:3], np.s_[-3:], np.s_[:, :3], np.s_[:, -3:]):
        face[side] = frame
    return np.ascontiguousarray(np.rot90(face))  # a box's top has its texture's top at the side


def digit(value: str, size: int) -> NDArray[np.uint8]:
    """The digit in ink, RGBA uint8 (size, size, 4), as tall as it can be."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGBA", (2 * size, 2 * size), (*_INK, 0))
    ImageDraw.Draw(image).text(
        (size, size), value, (*_INK, 255), ImageFont.load_default(1.3 * size), anchor="mm", stroke_width=size // 20
    )
    ink = image.crop(image.getchannel("A").getbbox())
    square = Image.new("RGBA", (max(ink.size), max(ink.size)), (*_INK, 0))
    square.paste(ink, ((square.width - ink.width) // 2, (square.height - ink.height) // 2))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def _on(color: tuple[int, int, int], stamp: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    face = np.tile(np.array(color, dtype=np.float64), (size, size, 1))
    margin = (size - len(stamp)) // 2
    inner = face[margin : margin + len(stamp), margin : margin + len(stamp)]
    alpha = stamp[..., 3:] / 255
    inner[:] = inner * (1 - alpha) + stamp[..., :3] * alpha
    return np.asarray(face.round().astype(np.uint8))
