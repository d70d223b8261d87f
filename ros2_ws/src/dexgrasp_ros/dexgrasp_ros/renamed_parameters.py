"""Accepts the old names of renamed parameters for one release, with a warning that names the new one."""

from collections.abc import Mapping
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter


def accept_old_names(node: Node, renamed: Mapping[str, str]) -> None:
    """Rename the parameter overrides of a node, old -> new name.

    To be called before the parameters are declared. Raises ValueError where a parameter is given under both names.
    """
    given: dict[str, Any] = node._parameter_overrides  # rclpy has no public access to undeclared overrides
    for old, new in renamed.items():
        if old not in given:
            continue
        if new in given:
            raise ValueError(f"parameter '{old}' is the old name of '{new}': give '{new}' alone")
        given[new] = Parameter(new, value=given.pop(old).value)
        node.get_logger().warning(f"parameter '{old}' is now called '{new}'; the old name goes with the next release")
