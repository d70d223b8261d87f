"""Package build by colcon: executables in lib/dexgrasp_ros, launch files and configuration in share/dexgrasp_ros."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "dexgrasp_ros"
NODES = (
    "description_node",
    "grasp_node",
    "identification_node",
    "joint_test_node",
    "leap_state_node",
    "perception_node",
    "recorder_node",
    "sim_robot_node",
)
"""Executables, each the `main` of the module of its name in `nodes`."""


def data_files(folder: Path, place: str) -> list[tuple[str, list[str]]]:
    """List all files below a folder in the form of the argument `data_files` of setuptools."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and path.name != "__pycache__")]
    return [
        (
            str(Path("share", NAME, place, path.relative_to(folder))),
            [str(file) for file in path.iterdir() if file.is_file()],
        )
        for path in folders
    ]


setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["config/*", "config/*/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *data_files(Path("launch"), "launch"),
        *data_files(Path(NAME, "config"), "config"),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="The dexgrasp authors",
    maintainer_email="dexgrasp@example.org",
    description="Dexterous grasping from a single depth camera on a robot",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"{node} = {NAME}.nodes.{node}:main" for node in NODES]},
)
