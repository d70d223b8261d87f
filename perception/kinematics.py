"""Batched forward kinematics of a hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from dexgrasp.perception.transforms import quat_multiply, quat_rotate


@dataclass(frozen=True)
class _Level:
    """Bodies of equal depth in the tree.

    Rotation in the parent, (body, 4): cos * quat_cos + sin * quat_sin + quat_fixed.
    """

    above: Tensor | None
    """Places of the parents in the level above; None where the two levels match one to one or by broadcasting."""
    pos: Tensor
    joint: Tensor
    quat_cos: Tensor
    quat_sin: Tensor
    quat_fixed: Tensor

    @classmethod
    def of(cls, tree: "Kinematics", bodies: list[int], above: list[int], n_above: int) -> Self:
        device, quat = tree.pos.device, tree.quat[bodies]
        joint = [tree.joint_of_body[i] for i in bodies]
        moves = torch.tensor([[float(j >= 0)] for j in joint]).to(quat)
        axis = torch.cat([torch.zeros_like(moves), tree.axis[bodies]], dim=-1)
        matched = n_above == 1 or above == list(range(n_above))
        return cls(
            above=None if matched else torch.tensor(above, device=device),
            pos=tree.pos[bodies],
            joint=torch.tensor([max(j, 0) for j in joint], device=device),
            quat_cos=quat * moves,
            quat_sin=quat_multiply(quat, axis) * moves,
            quat_fixed=quat * (1.0 - moves),
        )


@dataclass(frozen=True, eq=False)
class Kinematics:
    """Kinematic tree of bodies and hinges with keypoints.

    Body 0 is the root; parents precede their children.
    """

    body_names: tuple[str, ...]
    parent: tuple[int, ...]
    """Parent of each body; -1 for the root."""
    pos: Tensor
    """(body, 3) Origin in the parent's frame [m]; unused for the root."""
    quat: Tensor
    """(body, 4) Orientation in the parent's frame at joint position 0; unused for the root."""
    joint_of_body: tuple[int, ...]
    """Index into joint_pos of the hinge that moves each body about its own origin; -1 where the body is fixed."""
    axis: Tensor
    """(body, 3) Unit axis of the hinge in the body's frame; zero where the body is fixed."""
    keypoint_names: tuple[str, ...]
    keypoint_body: tuple[int, ...]
    keypoint_pos: Tensor
    """(keypoint, 3) Point in the frame of its body [m]."""
    _levels: tuple["_Level", ...] = field(init=False, repr=False)
    _order: Tensor = field(init=False, repr=False)
    _keypoint_body: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Sort the bodies by depth, once: `forward` then takes one vectorised step per level of the tree."""
        if not self.parent or self.parent[0] != -1 or any(not 0 <= p < i for i, p in enumerate(self.parent[1:], 1)):
            raise ValueError(f"Kinematics.parent must be -1 for body 0, then an earlier body each, got {self.parent}")
        levels: list[_Level] = []
        above, flat = [0], [0]
        while bodies := [i for i, p in enumerate(self.parent) if p in above]:
            levels.append(_Level.of(self, bodies, [above.index(self.parent[i]) for i in bodies], len(above)))
            above = bodies
            flat += bodies
        object.__setattr__(self, "_levels", tuple(levels))
        order = [flat.index(i) for i in range(len(flat))]
        for name, numbers in (("_order", order), ("_keypoint_body", self.keypoint_body)):
            object.__setattr__(self, name, torch.tensor(numbers, dtype=torch.int64, device=self.pos.device))

    def forward(self, root_pos: Tensor, root_quat: Tensor, joint_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the poses of all bodies from root poses (..., 3), (..., 4) and joint_pos (..., joint) [rad].

        All arguments have equal leading dimensions.

        Returns positions (..., body, 3) [m] and quaternions (..., body, 4) in the frame of the root pose.
        """
        half = 0.5 * joint_pos.unsqueeze(-1)
        cosine, sine = torch.cos(half), torch.sin(half)
        pos, quat = [root_pos.unsqueeze(-2)], [root_quat.unsqueeze(-2)]
        for level in self._levels:
            above_pos, above_quat = pos[-1], quat[-1]
            if level.above is not None:
                above_pos = above_pos.index_select(-2, level.above)
                above_quat = above_quat.index_select(-2, level.above)
            # The hinge turns after the fixed offset: offset * (cos, axis sin) = cos * offset + sin * (offset * axis).
            cos_l, sin_l = cosine.index_select(-2, level.joint), sine.index_select(-2, level.joint)
            local = cos_l * level.quat_cos + sin_l * level.quat_sin + level.quat_fixed
            pos.append(above_pos + quat_rotate(above_quat, level.pos))
            quat.append(quat_multiply(above_quat, local))
        return torch.cat(pos, -2).index_select(-2, self._order), torch.cat(quat, -2).index_select(-2, self._order)

    def keypoints(self, root_pos: Tensor, root_quat: Tensor, joint_pos: Tensor) -> Tensor:
        """Keypoints (..., keypoint, 3) [m] in the frame of the root pose; arguments as of `forward`."""
        pos, quat = self.forward(root_pos, root_quat, joint_pos)
        body = self._keypoint_body
        return pos.index_select(-2, body) + quat_rotate(quat.index_select(-2, body), self.keypoint_pos)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """Return a copy with tensors of another type or on another device."""
        moved = {k: getattr(self, k).to(dtype=dtype, device=device) for k in ("pos", "quat", "axis", "keypoint_pos")}
        return replace(self, **moved)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists of numbers and names, in full precision, for JSON."""
        values = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return {k: v.tolist() if isinstance(v, Tensor) else list(v) for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> Self:
        """The tree that `to_dict` wrote."""
        tensors = ("pos", "quat", "axis", "keypoint_pos")
        parsed: dict[str, Any] = {
            k: torch.tensor(v, dtype=dtype) if k in tensors else tuple(v) for k, v in values.items()
        }
        return cls(**parsed)
