"""`dexgrasp replay BAG`: runs perception and policy on a bag; status 1: results differ, or none.

The bag is one of the recorder node (MCAP); it is read with rosbags, without ROS. Each stage gets its recorded inputs:
perception the frames and readings, the grasp state machine the readings, points and plans. Service calls are not in a
bag: requests of the operator are derived from the recorded states.
"""

import importlib
import importlib.util
import sys
import types
from contextlib import suppress
from pathlib import Path

from dexgrasp.utils.text import install_command
from dexgrasp_ros.replay.config import ReplayCfg

PACKAGES = ("builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "sensor_msgs", "std_msgs", "trajectory_msgs")


def replay(cfg: ReplayCfg) -> int:
    """Replay the bag and print the comparison; return 1 where results differ or none was compared, else 0."""
    if importlib.util.find_spec("rosbags") is None:
        raise ImportError(f"reading a bag needs rosbags: {install_command('ros')} (No module named 'rosbags')")
    if not Path(cfg.bag).exists():
        raise FileNotFoundError(f"no bag '{cfg.bag}': give the folder that the recorder node wrote")
    provide_message_packages()  # before the imports of the stages

    from dexgrasp_ros.replay.run import run

    report = run(cfg)
    print(report.text())
    return int(report.first is not None or not report.counts)


def provide_message_packages() -> None:
    """Register the message classes of rosbags as ROS packages, where these are not installed."""
    with suppress(ImportError):
        for package in PACKAGES:
            importlib.import_module(f"{package}.msg")
        return
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    for package in PACKAGES:
        module, messages = types.ModuleType(package), types.ModuleType(f"{package}.msg")
        for name, kind in store.types.items():
            if name.startswith(f"{package}/msg/"):
                setattr(messages, name.rsplit("/", 1)[1], kind)
        sys.modules |= {package: module, messages.__name__: messages}
