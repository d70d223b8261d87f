"""Built by colcon: nodes go to lib/dexgrasp_ros, launch files and configuration to share/dexgrasp_ros."""

from pathlib import Path

from setuptools import setup

NAME = "dexgrasp_ros"
NODES = ("grasp_node", "identify", "leap_states", "perception_node", "record", "sim_robot_node", "wave")
"""Modules with a `main`, each an executable of the same name."""


def shared(folder: Path, place: str) -> list[tuple[str, list[str]]]:
    """All files below a folder, as `data_files` wants them."""
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
    packages=[NAME],
    package_data={NAME: ["config/*", "config/*/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *shared(Path("launch"), "launch"),
        *shared(Path(NAME, "config"), "config"),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="The dexgrasp authors",
    maintainer_email="dexgrasp@example.org",
    description="Dexterous grasping from a single depth camera on a robot",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"{node} = {NAME}.{node}:main" for node in NODES]},
)
