"""A hand of two joints as another project would describe it, with a light, a motor and a keyframe of its own."""

import yaml

from dexgrasp import assets

XML = """
<mujoco>
  <worldbody>
    <light pos="0 0 1"/>
    <body name="base" pos="1 2 3" quat="0 1 0 0">
      <geom type="box" size=".02 .02 .02" mass=".3"/>
      <body name="f1" pos="0 0 .02">
        <joint name="j1" axis="0 1 0" range="-9 9"/>
        <geom type="capsule" fromto="0 0 0 0 0 .05" size=".01" mass=".1"/>
        <body name="f2" pos="0 0 .05">
          <joint name="j2" axis="0 1 0"/>
          <geom type="capsule" fromto="0 0 0 0 0 .03" size=".01" mass=".1"/>
          <site name="tip" pos="0 0 .03"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="m1" joint="j1"/></actuator>
  <keyframe><key name="home" qpos="0 0"/></keyframe>
</mujoco>"""

HAND = {
    "name": "foreign",
    "side": "right",
    "model": "hand.xml",
    "root": "base",
    "source": "a test",
    "palm": {"pos_b": [0, 0, 0.02], "normal_b": [0, 0, -1], "finger_b": [1, 0, 0]},
    "actuation": {"effort_limit": 0.5, "speed_limit": 5, "kp": 2, "kd": 0.1, "damping": 0.05, "armature": 0.001},
    "joints": {
        "j1": {"range": [-0.5, 1.5], "open": 0.2, "closing": 1.0},
        "j2": {"range": [0, 1.5], "open": 0.3, "closing": 0.5, "effort_limit": 0.25},
    },
    "keypoints": {"wrist": {"weight": 0, "body": "base", "pos": [0, 0.01, 0]}, "tip": 1},
    "contact_bodies": {"palm": 0, "f1": 1, "f2": 3},
    "thumb_bodies": ["f2"],
    "grasp": dict.fromkeys(yaml.safe_load(assets.path("hands/leap/hand.yaml").read_text())["grasp"], 0.1),
}
"""Content of its hand.yaml, beside which `XML` is hand.xml."""
