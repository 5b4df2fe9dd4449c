"""The tabletop as a MuJoCo model: a table, a 7-joint arm of primitive shapes, a parallel gripper, five block slots, two cameras.

The arm has the joint frames, limits and reach of a common 7-DoF research arm (the Franka Emika Panda's published kinematics);
its shape is our own. Everything is in metres, kilograms, seconds and radians; the base stands at the origin, x points away
from it over the table, z up.
"""

from __future__ import annotations

from ornstein.simulation.scene import MAX_BLOCKS

BLOCK_HALF = 0.0225
TEXTURE_SIZE = 96
PHYSICS_STEP = 0.004
FINGER_TRAVEL = 0.04
#: Tool centre point: between the finger tips, seen from the hand's frame.
TOOL_OFFSET = 0.1034
HOME = (0.0, -0.0871, 0.0, -2.5418, 0.0, 2.4546, 0.7854)
PARKING = (-1.0, 0.0, 0.05)

_WHITE = "0.93 0.94 0.96 1"
_GREY = "0.30 0.33 0.38 1"
_ACCENT = "0.24 0.36 0.84 1"


def _capsule(a: str, b: str, radius: float, color: str) -> str:
    return f'<geom type="capsule" fromto="{a} {b}" size="{radius}" rgba="{color}" class="shell"/>'


def _blocks() -> str:
    text = ""
    for k in range(MAX_BLOCKS):
        x, y, z = PARKING
        text += f"""
    <body name="block{k}" pos="{x - 0.2 * k} {y} {z}">
      <freejoint name="block{k}"/>
      <geom name="block{k}" type="box" size="{BLOCK_HALF} {BLOCK_HALF} {BLOCK_HALF}" material="block{k}" mass="0.06"
            friction="1.2 0.02 0.0005" condim="4" solref="0.008 1" solimp="0.95 0.99 0.001"/>
    </body>"""
    return text


def _servo(joint: int) -> str:
    # The published arm's 87 Nm; its 12 Nm in the wrist are doubled, because a servo must also move our larger armatures.
    stiffness, torque = (2500, 87) if joint < 5 else (1200, 24)
    limits = f'forcerange="-{torque} {torque}"'
    return f'<position name="joint{joint}" joint="joint{joint}" kp="{stiffness}" dampratio="1" {limits}/>'


def _assets() -> str:
    text = '<texture name="table" type="2d" builtin="flat" width="8" height="8" rgb1="0.80 0.84 0.86"/>'
    for k in range(MAX_BLOCKS):
        text += f"""
    <texture name="block{k}" type="cube" builtin="flat" width="{TEXTURE_SIZE}" height="{TEXTURE_SIZE}" rgb1="1 1 1"/>
    <material name="block{k}" texture="block{k}" specular="0.1" shininess="0.1" reflectance="0"/>"""
    return text


def mjcf() -> str:
    """The model as MJCF text."""
    finger = (
        f'<geom type="box" pos="0 0.006 0.026" size="0.010 0.006 0.020" rgba="{_ACCENT}" class="pad"/>'
        f'<geom type="box" pos="0 0.012 0.012" size="0.010 0.008 0.014" rgba="{_GREY}" class="shell"/>'
    )
    return f"""
<mujoco model="tabletop">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{PHYSICS_STEP}" integrator="implicitfast" cone="elliptic" impratio="10" iterations="30" ls_iterations="20"/>
  <size nkey="0"/>
  <visual>
    <headlight ambient="0.42 0.42 0.42" diffuse="0.36 0.36 0.36" specular="0 0 0"/>
    <quality shadowsize="0" offsamples="4"/>
    <map znear="0.02" zfar="20"/>
    <global offwidth="640" offheight="640"/>
  </visual>
  <default>
    <default class="arm"><joint damping="1" armature="0.1"/></default>
    <default class="shell"><geom contype="0" conaffinity="0" group="1"/></default>
    <default class="pad"><geom condim="4" friction="1.6 0.05 0.001" solref="0.008 1" solimp="0.95 0.99 0.001" mass="0.02"/></default>
  </default>
  <asset>{_assets()}
  </asset>
  <worldbody>
    <light pos="0.9 -0.5 1.8" dir="-0.25 0.25 -1" directional="true" diffuse="0.38 0.38 0.38" specular="0 0 0" castshadow="false"/>
    <geom name="table" type="box" pos="0.35 0 -0.05" size="0.9 0.9 0.05" rgba="0.78 0.83 0.86 1" friction="1 0.02 0.0005" condim="4"/>
    <geom name="mat" type="box" pos="0.52 0 -0.049" size="0.17 0.215 0.0495" rgba="0.90 0.92 0.93 1" contype="0" conaffinity="0"/>
    <camera name="front" pos="0.93 0 0.60" xyaxes="0 1 0 -0.80 0 0.60" fovy="34"/>
    <body name="base">
      <geom type="cylinder" pos="0 0 0.03" size="0.09 0.03" rgba="{_GREY}" class="shell"/>
      {_capsule("0 0 0.06", "0 0 0.24", 0.065, _WHITE)}
      <body name="link1" pos="0 0 0.333" gravcomp="1" childclass="arm">
        <joint name="joint1" axis="0 0 1" range="-2.8973 2.8973"/>
        {_capsule("0 0 -0.08", "0 0 0", 0.062, _WHITE)}{_capsule("0 -0.05 0", "0 0.05 0", 0.062, _ACCENT)}
        <inertial pos="0 0 -0.05" mass="3" diaginertia="0.03 0.03 0.01"/>
        <body name="link2" quat="1 -1 0 0" gravcomp="1">
          <joint name="joint2" axis="0 0 1" range="-1.7628 1.7628"/>
          {_capsule("0 -0.06 0", "0 -0.24 0", 0.056, _WHITE)}
          <inertial pos="0 -0.1 0" mass="3" diaginertia="0.03 0.01 0.03"/>
          <body name="link3" pos="0 -0.316 0" quat="1 1 0 0" gravcomp="1">
            <joint name="joint3" axis="0 0 1" range="-2.8973 2.8973"/>
            {_capsule("0 0 -0.07", "0.08 0 0", 0.052, _WHITE)}
            <inertial pos="0.04 0 -0.03" mass="2.5" diaginertia="0.02 0.02 0.01"/>
            <body name="link4" pos="0.0825 0 0" quat="1 1 0 0" gravcomp="1">
              <joint name="joint4" axis="0 0 1" range="-3.0718 -0.0698"/>
              {_capsule("0 0 -0.045", "0 0 0.045", 0.055, _ACCENT)}{_capsule("-0.08 0.06 0", "-0.082 0.14 0", 0.048, _WHITE)}
              <inertial pos="-0.05 0.06 0" mass="2.5" diaginertia="0.02 0.01 0.02"/>
              <body name="link5" pos="-0.0825 0.384 0" quat="1 -1 0 0" gravcomp="1">
                <joint name="joint5" axis="0 0 1" range="-2.8973 2.8973"/>
                {_capsule("0 0 -0.24", "0 0 -0.06", 0.046, _WHITE)}{_capsule("0 0 -0.04", "0 0 0", 0.048, _WHITE)}
                <inertial pos="0 0 -0.1" mass="2.5" diaginertia="0.02 0.02 0.01"/>
                <body name="link6" quat="1 1 0 0" gravcomp="1">
                  <joint name="joint6" axis="0 0 1" range="-0.0175 3.7525"/>
                  {_capsule("0 0 -0.03", "0 0 0.03", 0.045, _ACCENT)}{_capsule("0.02 0 0", "0.088 0 0", 0.040, _WHITE)}
                  <inertial pos="0.05 0 0" mass="1.5" diaginertia="0.01 0.01 0.01"/>
                  <body name="link7" pos="0.088 0 0" quat="1 1 0 0" gravcomp="1">
                    <joint name="joint7" axis="0 0 1" range="-2.8973 2.8973"/>
                    {_capsule("0 0 0.02", "0 0 0.08", 0.036, _WHITE)}
                    <inertial pos="0 0 0.06" mass="0.7" diaginertia="0.005 0.005 0.005"/>
                    <body name="hand" pos="0 0 0.107" quat="0.9238795 0 0 -0.3826834" gravcomp="1">
                      <inertial pos="0 0 0.03" mass="0.5" diaginertia="0.002 0.002 0.001"/>
                      <geom type="box" pos="0 0 0.030" size="0.018 0.062 0.022" rgba="{_GREY}" class="shell"/>
                      <site name="tool" pos="0 0 {TOOL_OFFSET}" size="0.004" rgba="0 0 0 0"/>
                      <camera name="wrist" pos="0.06 0 0.0" xyaxes="0 1 0 0.98 0 -0.2" fovy="70"/>
                      <body name="finger_left" pos="0 0 0.0584" gravcomp="1">
                        <joint name="finger_left" type="slide" axis="0 1 0" range="0 {FINGER_TRAVEL}" damping="10" armature="0.1"/>
                        {finger}
                      </body>
                      <body name="finger_right" pos="0 0 0.0584" quat="0 0 0 1" gravcomp="1">
                        <joint name="finger_right" type="slide" axis="0 1 0" range="0 {FINGER_TRAVEL}" damping="10" armature="0.1"/>
                        {finger}
                      </body>
                    </body>
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>{_blocks()}
  </worldbody>
  <contact>
    <exclude body1="finger_left" body2="finger_right"/>
  </contact>
  <tendon>
    <fixed name="opening"><joint joint="finger_left" coef="0.5"/><joint joint="finger_right" coef="0.5"/></fixed>
  </tendon>
  <equality>
    <joint joint1="finger_left" joint2="finger_right" solref="0.005 1" solimp="0.95 0.99 0.001"/>
  </equality>
  <actuator>
    {"".join(_servo(k) for k in range(1, 8))}
    <position name="gripper" tendon="opening" kp="700" kv="20" ctrlrange="0 {FINGER_TRAVEL}" forcerange="-40 40"/>
  </actuator>
</mujoco>
"""
