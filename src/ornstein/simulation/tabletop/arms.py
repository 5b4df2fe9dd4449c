"""Two arms of primitive shapes, each with a parallel gripper, as MJCF.

`ARM7` has the joint frames, limits and reach of a common 7-DoF research arm (the Franka Emika Panda's published kinematics), `ARM6` those of a
longer 6-DoF industrial one (Universal Robots UR5e); shapes and masses are our own. Both take the same actions: deltas of the tool's pose.

Metres, kilograms, seconds, radians. The base stands at the origin, x points away from it over the table, z up. The tool frame lies between
the finger tips: z along the fingers, y the direction in which they open.
"""

from __future__ import annotations

from dataclasses import dataclass

WHITE, GREY, BLUE, ORANGE = "0.93 0.94 0.96 1", "0.30 0.33 0.38 1", "0.24 0.36 0.84 1", "0.93 0.55 0.20 1"


@dataclass(frozen=True)
class Gripper:
    """Two fingers that slide along ±y of the hand.

    travel: of each finger [m]. length: from the hand's front to the finger tips. pad: half sizes of a finger's inner side [m].
    """

    travel: float
    length: float
    pad_half_width: float
    color: str

    @property
    def tool_offset(self) -> float:
        """From the hand's frame to the tool's, along z."""
        return _HAND_DEPTH + self.length

    def mjcf(self, wrist_camera: str) -> str:
        """The hand's contents: shapes, tool, camera and fingers."""
        half = self.length / 2
        pad = f"{self.pad_half_width} {_PAD_HALF} {half - 0.002}"
        finger = (
            f'<geom type="box" pos="0 {_PAD_HALF} {half}" size="{pad}" rgba="{self.color}" class="pad"/>'
            f'<geom type="box" pos="0 {2 * _PAD_HALF} {half * 0.5}" size="{self.pad_half_width} 0.008 {half * 0.5}" '
            f'rgba="{GREY}" class="shell"/>'
        )
        joint = f'type="slide" axis="0 1 0" range="0 {self.travel}" damping="10" armature="0.1"'
        fingers = "".join(
            f'<body name="finger_{side}" pos="0 0 {_HAND_DEPTH}" quat="{quat}" gravcomp="1"><joint name="finger_{side}" {joint}/>{finger}</body>'
            for side, quat in (("left", "1 0 0 0"), ("right", "0 0 0 1"))
        )
        return f"""
      <inertial pos="0 0 0.03" mass="0.5" diaginertia="0.002 0.002 0.001"/>
      <geom type="box" pos="0 0 {_HAND_DEPTH - 0.022}" size="0.018 {self.travel + 0.022} 0.022" rgba="{GREY}" class="pad"/>
      <site name="tool" pos="0 0 {self.tool_offset}" size="0.004" rgba="0 0 0 0"/>
      {wrist_camera}{fingers}"""


_HAND_DEPTH = 0.052
_PAD_HALF = 0.006


@dataclass(frozen=True)
class Arm:
    """One arm.

    body: its kinematic chain in MJCF with `{hand}` where the gripper goes. home: joint angles of the start [rad]. speed: what each
    joint allows [rad/s]. servos: stiffness [N·m/rad] and torque [N·m] of each.
    """

    name: str
    body: str
    gripper: Gripper
    home: tuple[float, ...]
    speed: tuple[float, ...]
    servos: tuple[tuple[float, float], ...]
    wrist_camera: str

    @property
    def joints(self) -> int:
        return len(self.home)

    def mjcf(self) -> str:
        """The arm's body, from its base."""
        return self.body.replace("{hand}", self.gripper.mjcf(self.wrist_camera))

    def actuators(self) -> str:
        """Position servos of the joints, and one that opens both fingers alike."""
        servos = "".join(
            f'<position name="joint{k}" joint="joint{k}" kp="{stiffness}" dampratio="1" forcerange="-{torque} {torque}"/>'
            for k, (stiffness, torque) in enumerate(self.servos, 1)
        )
        return servos + (
            f'<position name="gripper" tendon="opening" kp="700" kv="20" ctrlrange="0 {self.gripper.travel}" forcerange="-40 40"/>'
        )


def _capsule(a: str, b: str, radius: float, color: str) -> str:
    return f'<geom type="capsule" fromto="{a} {b}" size="{radius}" rgba="{color}" class="shell"/>'


def _joint(number: int, axis: str, low: float, high: float) -> str:
    return f'<joint name="joint{number}" axis="{axis}" range="{low} {high}"/>'


def _inertia(pos: str, mass: float, moments: str) -> str:
    return f'<inertial pos="{pos}" mass="{mass}" diaginertia="{moments}"/>'


# Frames and limits: Franka Emika's "Robot and interface specifications"; 12 N·m in the wrist are doubled, because a servo must also
# move our larger armatures.
ARM7 = Arm(
    name="arm7",
    body=f"""
    <body name="base">
      <geom type="cylinder" pos="0 0 0.03" size="0.09 0.03" rgba="{GREY}" class="shell"/>{_capsule("0 0 0.06", "0 0 0.24", 0.065, WHITE)}
      <body name="link1" pos="0 0 0.333" gravcomp="1" childclass="arm">{_joint(1, "0 0 1", -2.8973, 2.8973)}
        {_capsule("0 0 -0.08", "0 0 0", 0.062, WHITE)}{_capsule("0 -0.05 0", "0 0.05 0", 0.062, BLUE)}{_inertia("0 0 -0.05", 3, "0.03 0.03 0.01")}
        <body name="link2" quat="1 -1 0 0" gravcomp="1">{_joint(2, "0 0 1", -1.7628, 1.7628)}
          {_capsule("0 -0.06 0", "0 -0.24 0", 0.056, WHITE)}{_inertia("0 -0.1 0", 3, "0.03 0.01 0.03")}
          <body name="link3" pos="0 -0.316 0" quat="1 1 0 0" gravcomp="1">{_joint(3, "0 0 1", -2.8973, 2.8973)}
            {_capsule("0 0 -0.07", "0.08 0 0", 0.052, WHITE)}{_inertia("0.04 0 -0.03", 2.5, "0.02 0.02 0.01")}
            <body name="link4" pos="0.0825 0 0" quat="1 1 0 0" gravcomp="1">{_joint(4, "0 0 1", -3.0718, -0.0698)}
              {_capsule("0 0 -0.045", "0 0 0.045", 0.055, BLUE)}{_capsule("-0.08 0.06 0", "-0.082 0.14 0", 0.048, WHITE)}
              {_inertia("-0.05 0.06 0", 2.5, "0.02 0.01 0.02")}
              <body name="link5" pos="-0.0825 0.384 0" quat="1 -1 0 0" gravcomp="1">{_joint(5, "0 0 1", -2.8973, 2.8973)}
                {_capsule("0 0 -0.24", "0 0 -0.06", 0.046, WHITE)}{_capsule("0 0 -0.04", "0 0 0", 0.048, WHITE)}
                {_inertia("0 0 -0.1", 2.5, "0.02 0.02 0.01")}
                <body name="link6" quat="1 1 0 0" gravcomp="1">{_joint(6, "0 0 1", -0.0175, 3.7525)}
                  {_capsule("0 0 -0.03", "0 0 0.03", 0.045, BLUE)}{_capsule("0.02 0 0", "0.088 0 0", 0.040, WHITE)}
                  {_inertia("0.05 0 0", 1.5, "0.01 0.01 0.01")}
                  <body name="link7" pos="0.088 0 0" quat="1 1 0 0" gravcomp="1">{_joint(7, "0 0 1", -2.8973, 2.8973)}
                    {_capsule("0 0 0.02", "0 0 0.08", 0.036, WHITE)}{_inertia("0 0 0.06", 0.7, "0.005 0.005 0.005")}
                    <body name="hand" pos="0 0 0.107" quat="0.9238795 0 0 -0.3826834" gravcomp="1">{{hand}}
                    </body>
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>""",
    gripper=Gripper(travel=0.05, length=0.052, pad_half_width=0.011, color=BLUE),
    home=(0.0, -0.0884, 0.0, -2.5414, 0.0, 2.4529, 0.7854),
    speed=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    servos=((9000, 87),) * 4 + ((3000, 24),) * 3,
    wrist_camera='<camera name="wrist" pos="0.07 0 0.0" xyaxes="0 1 0 0.97 0 0.25" fovy="75"/>',
)

# Frames: Universal Robots' published Denavit-Hartenberg parameters of the UR5e; limits narrowed to what a table leaves.
ARM6 = Arm(
    name="arm6",
    body=f"""
    <body name="base">
      <geom type="cylinder" pos="0 0 0.02" size="0.10 0.02" rgba="{GREY}" class="shell"/>{_capsule("0 0 0.04", "0 0 0.10", 0.07, GREY)}
      <body name="link1" pos="0 0 0.1625" gravcomp="1" childclass="arm">{_joint(1, "0 0 1", -3.1, 3.1)}
        {_capsule("0 0 -0.03", "0 0 0.03", 0.068, ORANGE)}{_capsule("0 0.02 0", "0 0.12 0", 0.055, WHITE)}{_inertia("0 0.05 0", 3.7, "0.03 0.02 0.02")}
        <body name="link2" pos="0 0.138 0" quat="0.7071068 0 0.7071068 0" gravcomp="1">{_joint(2, "0 1 0", -3.1, 0.2)}
          {_capsule("0 0 0", "0 0 0.42", 0.048, WHITE)}{_capsule("0 -0.06 0.425", "0 0.02 0.425", 0.052, ORANGE)}{_inertia("0 0 0.2", 6, "0.1 0.1 0.02")}
          <body name="link3" pos="0 -0.131 0.425" gravcomp="1">{_joint(3, "0 1 0", 0.05, 2.9)}
            {_capsule("0 0 0", "0 0 0.37", 0.042, WHITE)}{_inertia("0 0 0.18", 2.3, "0.03 0.03 0.005")}
            <body name="link4" pos="0 0 0.392" quat="0.7071068 0 0.7071068 0" gravcomp="1">{_joint(4, "0 1 0", -4.5, 1.5)}
              {_capsule("0 0 0", "0 0.11 0", 0.042, ORANGE)}{_inertia("0 0.08 0", 1.2, "0.005 0.005 0.005")}
              <body name="link5" pos="0 0.127 0" gravcomp="1">{_joint(5, "0 0 1", -3.1, 3.1)}
                {_capsule("0 0 0", "0 0 0.08", 0.040, WHITE)}{_inertia("0 0 0.06", 1.2, "0.005 0.005 0.005")}
                <body name="link6" pos="0 0 0.1" gravcomp="1">{_joint(6, "0 1 0", -3.1, 3.1)}
                  {_capsule("0 0.03 0", "0 0.07 0", 0.036, GREY)}{_inertia("0 0.06 0", 0.4, "0.002 0.002 0.002")}
                  <body name="hand" pos="0 0.1 0" quat="0.7071068 -0.7071068 0 0" gravcomp="1">{{hand}}
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>""",
    gripper=Gripper(travel=0.055, length=0.07, pad_half_width=0.014, color=ORANGE),
    home=(-0.3024, -1.6323, 2.0659, -2.0044, -1.5708, -1.8732),
    speed=(3.14,) * 6,
    servos=((12000, 150),) * 3 + ((3500, 35),) * 3,
    wrist_camera='<camera name="wrist" pos="0.07 0 0.0" xyaxes="0 1 0 0.97 0 0.25" fovy="75"/>',
)

ARMS = {arm.name: arm for arm in (ARM7, ARM6)}
