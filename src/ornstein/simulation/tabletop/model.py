"""The tabletop as a MuJoCo model: table, arm, five blocks, a bowl, three mats, a cabinet with a drawer, two cameras.

One model serves every scene of an arm: what a scene lacks is parked under the table, and sizes, places, textures, lights and cameras are
written into the compiled model. Metres, kilograms, seconds, radians.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ornstein.simulation.tabletop.arms import Arm

MAX_BLOCKS, MAX_MATS = 5, 3
PHYSICS_STEP = 0.005
FACE_PIXELS, MAT_PIXELS, TABLE_PIXELS = 96, 96, 256
BLOCK_HALF = 0.030
MAT_HALF = 0.048
BOWL_INNER, BOWL_HEIGHT = 0.056, 0.034
_BOWL_WALLS, _WALL_HALF = 12, 0.004
#: Half sizes of the cabinet in its own frame: x to the right of who stands before it, y out of its back, z.
CABINET_HALF = (0.075, 0.052, 0.030)
DRAWER_TRAVEL = 0.085
#: A tab before the drawer's front, higher than the cabinet: open fingers pass above it.
HANDLE_OUT, HANDLE_HALF, HANDLE_Z = 0.022, (0.022, 0.006, 0.034), 0.060
HANDLE_TOP = HANDLE_Z + HANDLE_HALF[2]
_PANEL_HALF = 0.004
#: From the cabinet's middle to the handle's, closed, along y.
HANDLE_REACH = CABINET_HALF[1] + _PANEL_HALF + HANDLE_OUT
PARKING = {"bowl": (0.0, 0.0, -2.0), "cabinet": (0.5, 0.0, -2.0), "mat": (1.0, 0.0, -2.0), "block": (1.5, 0.0, -2.0)}
#: A distant camera with a narrow view: a block's face is about as large at the back of the table as at the front.
FRONT_POSITION, FRONT_TARGET, FRONT_FOVY = (1.34, 0.0, 1.12), (0.530, 0.0, 0.02), 16.4


def mjcf(arm: Arm) -> str:
    """The model as MJCF text."""
    return f"""
<mujoco model="tabletop-{arm.name}">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{PHYSICS_STEP}" integrator="implicitfast" cone="elliptic" impratio="10" iterations="30" ls_iterations="20"/>
  <size nkey="0"/>
  <visual>
    <headlight ambient="0.42 0.42 0.42" diffuse="0.36 0.36 0.36" specular="0 0 0"/>
    <quality shadowsize="0" offsamples="4" numslices="16" numstacks="8" numquads="1"/>
    <map znear="0.02" zfar="20"/>
    <global offwidth="128" offheight="128"/>
  </visual>
  <default>
    <default class="arm"><joint damping="1" armature="0.1"/></default>
    <default class="shell"><geom contype="0" conaffinity="0" group="1"/></default>
    <default class="pad"><geom condim="4" friction="1.6 0.05 0.001" solref="0.01 1" solimp="0.95 0.99 0.001" mass="0.02"/></default>
    <default class="fixture"><geom condim="3" friction="0.6 0.01 0.0002" solref="0.01 1" solimp="0.95 0.99 0.001"/></default>
  </default>
  <asset>{_assets()}
  </asset>
  <worldbody>
    <light name="sun" pos="0.9 -0.5 1.8" dir="-0.25 0.25 -1" directional="true" diffuse="0.38 0.38 0.38" specular="0 0 0" castshadow="false"/>
    <geom name="table" type="box" pos="0.5 0 -0.05" size="1.2 1.2 0.05" material="table" friction="1 0.02 0.0005" condim="4"/>
    <camera name="front" pos="{_numbers(FRONT_POSITION)}" xyaxes="{_numbers(looking(FRONT_POSITION, FRONT_TARGET))}" fovy="{FRONT_FOVY}"/>
    {arm.mjcf()}{_blocks()}{_mats()}{_bowl()}{_cabinet()}
  </worldbody>
  <contact>
    <exclude body1="finger_left" body2="finger_right"/>
    <exclude body1="cabinet" body2="drawer"/>
  </contact>
  <tendon>
    <fixed name="opening"><joint joint="finger_left" coef="0.5"/><joint joint="finger_right" coef="0.5"/></fixed>
  </tendon>
  <equality>
    <joint joint1="finger_left" joint2="finger_right" solref="0.01 1" solimp="0.95 0.99 0.001"/>
  </equality>
  <actuator>
    {arm.actuators()}
  </actuator>
</mujoco>
"""


def looking(position: tuple[float, ...], target: tuple[float, ...]) -> tuple[float, ...]:
    """A camera's x and y axes, six numbers: it looks from `position` at `target`, the picture's right horizontal."""
    ahead = [b - a for a, b in zip(position, target, strict=True)]
    length = math.sqrt(sum(v * v for v in ahead))
    ahead = [v / length for v in ahead]
    right = [ahead[1], -ahead[0], 0.0]
    scale = math.hypot(*right)
    right = [v / scale for v in right]
    up = [
        right[1] * ahead[2] - right[2] * ahead[1],
        right[2] * ahead[0] - right[0] * ahead[2],
        right[0] * ahead[1] - right[1] * ahead[0],
    ]
    return (*right, *up)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _assets() -> str:
    def of(name: str, kind: str, pixels: int) -> str:
        return (
            f'<texture name="{name}" type="{kind}" builtin="flat" width="{pixels}" height="{pixels}" rgb1="1 1 1"/>'
            f'<material name="{name}" texture="{name}" specular="0.1" shininess="0.1" reflectance="0"/>'
        )

    return (
        "".join(of(f"block{k}", "cube", FACE_PIXELS) for k in range(MAX_BLOCKS))
        + "".join(of(f"mat{k}", "2d", MAT_PIXELS) for k in range(MAX_MATS))
        + of("table", "2d", TABLE_PIXELS)
    )


def _blocks() -> str:
    half = f"{BLOCK_HALF} {BLOCK_HALF} {BLOCK_HALF}"
    return "".join(
        f"""
    <body name="block{k}" pos="{PARKING["block"][0] + 0.2 * k} 0 {PARKING["block"][2]}">
      <freejoint name="block{k}"/>
      <geom name="block{k}" type="box" size="{half}" material="block{k}" mass="0.08" friction="1.0 0.02 0.0005" condim="4"
            solref="0.01 1" solimp="0.95 0.99 0.001"/>
    </body>"""
        for k in range(MAX_BLOCKS)
    )


def _mats() -> str:
    # Sheets without contact: what stands on a mat stands on the table. A thousandth of a metre keeps them above its surface in the picture.
    return "".join(
        f"""
    <body name="mat{k}" pos="{_numbers(PARKING["mat"])}">
      <geom name="mat{k}" type="box" size="{MAT_HALF} {MAT_HALF} 0.0005" material="mat{k}" class="shell"/>
    </body>"""
        for k in range(MAX_MATS)
    )


def _bowl() -> str:
    walls = ""
    floor = BOWL_INNER * 0.72  # boxes rest on boxes more calmly than on cylinders
    for k in range(_BOWL_WALLS):
        angle = 2 * math.pi * k / _BOWL_WALLS
        radius, half = BOWL_INNER + _WALL_HALF, (BOWL_INNER + 2 * _WALL_HALF) * math.tan(math.pi / _BOWL_WALLS)
        walls += (
            f'<geom type="box" pos="{radius * math.cos(angle):.5f} {radius * math.sin(angle):.5f} {BOWL_HEIGHT / 2}" '
            f'euler="0 0 {angle:.5f}" size="{_WALL_HALF} {half:.5f} {BOWL_HEIGHT / 2}" rgba="0.20 0.55 0.60 1" class="fixture"/>'
        )
    return f"""
    <body name="bowl" pos="{_numbers(PARKING["bowl"])}">
      <geom type="cylinder" pos="0 0 0.002" size="{BOWL_INNER + 0.003} 0.002" rgba="0.30 0.68 0.72 1" class="shell"/>
      <geom type="box" pos="0 0 0.002" size="{floor} {floor} 0.002" rgba="0.30 0.68 0.72 1" class="fixture"/>{walls}
    </body>"""


def _cabinet() -> str:
    x, y, z = CABINET_HALF
    wall, front = _PANEL_HALF, -y - _PANEL_HALF
    shell = 'rgba="0.55 0.38 0.24 1" class="fixture"'
    inside = 'rgba="0.80 0.64 0.44 1" class="fixture"'
    handle = 'rgba="0.16 0.17 0.20 1" class="fixture" mass="0.05"'
    inner = x - 2 * wall - 0.002
    return f"""
    <body name="cabinet" pos="{_numbers(PARKING["cabinet"])}">
      <geom type="box" pos="0 0 {2 * z - wall}" size="{x} {y} {wall}" {shell}/>
      <geom type="box" pos="0 {y - wall} {z}" size="{x} {wall} {z}" {shell}/>
      <geom type="box" pos="{x - wall} 0 {z}" size="{wall} {y} {z}" {shell}/>
      <geom type="box" pos="{wall - x} 0 {z}" size="{wall} {y} {z}" {shell}/>
      <body name="drawer">
        <joint name="drawer" type="slide" axis="0 -1 0" range="0 {DRAWER_TRAVEL}" damping="3" frictionloss="1.0" armature="0.05"/>
        <geom type="box" pos="0 {front} {z}" size="{x} {wall} {z}" mass="0.15" {inside}/>
        <geom type="box" pos="0 0 0.005" size="{inner} {y - 2 * wall} 0.003" mass="0.1" {inside}/>
        <geom type="box" pos="{inner - wall} 0 0.02" size="{wall} {y - 2 * wall} 0.014" mass="0.05" {inside}/>
        <geom type="box" pos="{wall - inner} 0 0.02" size="{wall} {y - 2 * wall} 0.014" mass="0.05" {inside}/>
        <geom type="box" pos="0 {y - 3 * wall} 0.02" size="{inner} {wall} 0.014" mass="0.05" {inside}/>
        <geom name="handle" type="box" pos="0 {front - HANDLE_OUT} {HANDLE_Z}" size="{_numbers(HANDLE_HALF)}" {handle}/>
        <geom type="box" pos="0 {front - HANDLE_OUT / 2} 0.030" size="0.008 {HANDLE_OUT / 2} 0.006" {handle}/>
      </body>
    </body>"""
