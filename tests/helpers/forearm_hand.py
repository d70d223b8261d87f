"""A forearm with a hand as another project would describe it: meshes, visual geoms, frames, a wrist, a tendon."""

from pathlib import Path

import yaml

from tests.helpers.two_joint_hand import HAND as TWO_JOINTS

_TETRAHEDRON = "0 0 0  .02 0 0  0 .03 0  .005 .006 .04"
XML = f"""
<mujoco model="forearm">
  <compiler angle="degree" eulerseq="XYZ"/>
  <option impratio="7" cone="elliptic"/>
  <default>
    <default class="visual"><geom contype="0" conaffinity="0" group="2" mass="0" type="mesh" mesh="shell"/></default>
    <default class="solid"><geom type="capsule" size=".008" mass=".02" priority="1" friction="2"/></default>
  </default>
  <asset>
    <mesh name="shell" vertex="{_TETRAHEDRON}" scale="1 1.2 .9" refpos=".001 .002 .003" refquat=".9 .1 .2 .3"/>
    <mesh name="sleeve" vertex="{_TETRAHEDRON}"/>
    <material name="grey" rgba=".5 .5 .5 1"/>
  </asset>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 .1"/>
    <body name="forearm" pos=".1 .2 .3" euler="10 20 30">
      <geom type="mesh" mesh="sleeve"/>
      <joint name="turn" axis="0 0 1"/>
      <body name="wrist" pos="0 0 .1">
        <joint name="bend" axis="0 1 0" pos="0 0 -.01" range="-40 40"/>
        <geom class="solid" fromto="0 0 -.02 0 0 .01"/>
        <body name="hand_base" pos="0 .01 .03" axisangle="0 1 0 15">
          <joint name="roll" axis="1 0 0" range="-30 30"/>
          <inertial pos="0 .002 .02" mass=".3" fullinertia="3e-4 2.5e-4 2e-4 1e-5 2e-5 3e-5"/>
          <geom class="visual" pos=".05 -.04 .02"/>
          <geom type="box" size=".03 .04 .03" pos="0 0 .02" material="grey"/>
          <site name="anchor" pos=".01 .02 .03" euler="0 0 20"/>
          <frame name="knuckles" pos="0 0 .06" euler="5 0 10">
            <body name="f_near" pos="0 .03 0" zaxis=".1 .05 1">
              <joint name="f1" axis="0 1 0" range="-10 90" ref="5"/>
              <geom class="visual"/>
              <geom class="solid" fromto="0 0 0 0 0 .04"/>
              <body name="f_tip" pos="0 0 .04" xyaxes="1 .1 0 -.1 1 .1">
                <joint name="f2" axis="0 1 .1" range="0 80"/>
                <geom class="visual"/>
                <geom class="solid" fromto="0 0 0 0 0 .03"/>
                <geom type="mesh" mesh="shell" pos="0 .01 .01" euler="20 0 40" mass=".01"/>
                <site name="finger_tip" pos="0 .001 .03"/>
              </body>
            </body>
          </frame>
          <body name="t_near" pos=".02 -.03 .02" euler="0 60 0">
            <joint name="t1" axis="0 -1 0" pos="0 .002 .004" range="-20 70"/>
            <geom class="visual"/>
            <geom class="solid" fromto="0 0 0 0 0 .04"/>
            <body name="t_tip" pos="0 0 .04">
              <joint name="t2" axis="0 -1 0" range="0 70"/>
              <geom class="visual"/>
              <geom class="solid" fromto="0 0 0 0 0 .03"/>
              <site name="thumb_tip" pos="0 .002 .03"/>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <contact>
    <exclude name="inside" body1="hand_base" body2="f_tip"/>
    <exclude name="outside" body1="forearm" body2="hand_base"/>
  </contact>
  <tendon>
    <spatial name="pull"><site site="anchor"/><site site="finger_tip"/></spatial>
    <fixed name="wrist_pull"><joint joint="bend" coef="1"/><joint joint="f1" coef="2"/></fixed>
  </tendon>
  <equality>
    <joint name="curl" joint1="f2" joint2="f1"/>
    <joint name="wrist_curl" joint1="bend" joint2="f1"/>
    <connect name="hold" body1="hand_base" body2="t_tip" anchor=".01 .02 .03" active="false"/>
  </equality>
  <actuator><motor name="bend" joint="bend"/><motor name="t1" joint="t1"/></actuator>
  <sensor><framepos name="where" objtype="body" objname="hand_base"/></sensor>
  <keyframe><key name="home" qpos="0 0 0 0 0 0 0"/></keyframe>
</mujoco>"""

UNCOUPLED = XML.replace(XML[XML.index("  <tendon>") : XML.index("  <actuator>")], "")
"""Without tendons and equalities."""

HAND = TWO_JOINTS | {
    "root": "hand_base",
    "palm": {"pos_b": [0.03, 0, 0.03], "normal_b": [1, 0, 0], "finger_b": [0, 0, 1]},
    "joints": {
        "f1": {"range": [-0.1, 1.5], "open": 0.2, "closing": 1.0},
        "f2": {"range": [0, 1.3], "open": 0.3, "closing": 0.5, "effort_limit": 0.25},
        "t1": {"range": [-0.3, 1.2], "open": 0.1, "closing": 0.7, "kp": 1.5},
        "t2": {"range": [0, 1.2], "open": 0.4, "closing": 0.9},
    },
    "keypoints": {
        "wrist": {"weight": 0, "body": "hand_base", "pos": [0, 0.01, 0]},
        "finger_tip": 1,
        "thumb": {"weight": 2, "body": "t_near", "pos": [0, 0.01, 0.02]},
        "thumb_tip": 1,
    },
    "contact_bodies": {"hand_base": 0, "f_near": 1, "f_tip": 3, "t_near": 1, "t_tip": 3},
    "thumb_bodies": ["t_near", "t_tip"],
}
"""Content of its hand.yaml, beside which `UNCOUPLED` is hand.xml."""


def write_hand(folder: Path, text: str = UNCOUPLED, **changes: object) -> Path:
    """Write hand.yaml, with `changes` of its keys, and the model; return the folder."""
    (folder / "hand.xml").write_text(text)
    (folder / "hand.yaml").write_text(yaml.safe_dump(HAND | changes, sort_keys=False))
    return folder
