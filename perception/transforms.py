"""Batched rotations and rigid poses in torch.

Quaternions are (w, x, y, z) and of unit length. `quat_a_b` turns coordinates in frame b into coordinates in frame a.
Every function takes any leading dimensions (they broadcast) and any float type, and can be exported to ONNX.
"""

import torch
from torch import Tensor

SMALL_ANGLE = 1e-4  # rad: below it sin(x)/x is its series to the second order, exact to 1e-17

_HAMILTON = torch.tensor(
    [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
     [0, -1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, -1, 0],
     [0, 0, -1, 0, 0, 0, 0, -1, 1, 0, 0, 0, 0, 1, 0, 0],
     [0, 0, 0, -1, 0, 0, 1, 0, 0, -1, 0, 0, 1, 0, 0, 0]],
    dtype=torch.float64,
)  # fmt: skip
"""b @ this: the matrix, row by row, that turns a into the product of a and b."""
_HAMILTON_AS = {(kind, _HAMILTON.device): _HAMILTON.to(kind) for kind in (torch.float32, torch.float64)}
"""It by type and device: a copy to a GPU in every product would wait for it."""


def quat_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return the quaternion product a b (..., 4): rotation b followed by rotation a.

    Vectorised, with a third of the operations of the usual formula.
    """
    key = b.dtype, b.device
    if key not in _HAMILTON_AS:
        _HAMILTON_AS[key] = _HAMILTON.to(b)
    return (a[..., None, :] * (b @ _HAMILTON_AS[key]).unflatten(-1, (4, 4))).sum(-1)


def quat_conjugate(q: Tensor) -> Tensor:
    """Inverse rotation of a unit quaternion, (..., 4)."""
    return torch.cat([q[..., :1], -q[..., 1:]], dim=-1)


def quat_rotate(q: Tensor, v: Tensor) -> Tensor:
    """Vector v (..., 3) turned by q (..., 4): from frame b to frame a when q is quat_a_b."""
    u = q[..., 1:]
    t = 2.0 * _cross(u, v)
    return v + q[..., :1] * t + _cross(u, t)


def quat_rotate_inverse(q: Tensor, v: Tensor) -> Tensor:
    """Vector v (..., 3) turned back by q (..., 4): from frame a to frame b when q is quat_a_b."""
    return quat_rotate(quat_conjugate(q), v)


def quat_from_rotvec(v: Tensor) -> Tensor:
    """Quaternion (..., 4) of the rotation by |v| [rad] about v (..., 3): the exponential map."""
    half = 0.5 * v.norm(dim=-1, keepdim=True)
    small = half < SMALL_ANGLE
    sinc = torch.where(small, 1.0 - half * half / 6.0, torch.sin(half) / half.clamp(min=SMALL_ANGLE))
    return torch.cat([torch.cos(half), 0.5 * sinc * v], dim=-1)


def rotvec_from_quat(q: Tensor) -> Tensor:
    """Rotation vector (..., 3) [rad], at most pi long, of a unit quaternion: the logarithm."""
    q = torch.where(q[..., :1] < 0, -q, q)
    w, v = q[..., :1], q[..., 1:]
    sine = v.norm(dim=-1, keepdim=True)
    exact = 2.0 * torch.atan2(sine, w) / sine.clamp(min=SMALL_ANGLE)
    return torch.where(sine < SMALL_ANGLE, 2.0 + sine * sine / 3.0, exact) * v


def matrix_from_quat(q: Tensor) -> Tensor:
    """Rotation matrix (..., 3, 3) of a unit quaternion; its columns are the axes of frame b in frame a."""
    w, x, y, z = q.unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quat_from_matrix(matrix: Tensor) -> Tensor:
    """Unit quaternion (..., 4), w >= 0, of a rotation matrix (..., 3, 3).

    Each row of K is the quaternion times 4 w, 4 x, 4 y or 4 z; the row with the largest factor is the most exact one.
    """
    m = matrix
    a, b, c = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    yz, zx, xy = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    sxy, sxz, syz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    rows = [1 + a + b + c, yz, zx, xy,
            yz, 1 + a - b - c, sxy, sxz,
            zx, sxy, 1 - a + b - c, syz,
            xy, sxz, syz, 1 - a - b + c]  # fmt: skip
    k = torch.stack(rows, dim=-1).unflatten(-1, (4, 4))
    best = torch.diagonal(k, dim1=-2, dim2=-1).argmax(dim=-1)
    row = torch.gather(k, -2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    q = row / row.norm(dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)


def quat_nlerp(a: Tensor, b: Tensor, part: float) -> Tensor:
    """Interpolate the rotation (..., 4) at `part` of the shorter arc from a to b, normalised linearly.

    Exact at both ends, approximate in between.
    """
    near = torch.where((a * b).sum(-1, keepdim=True) < 0, -b, b)
    q = a + part * (near - a)
    return q / q.norm(dim=-1, keepdim=True)


def plane_basis(normal: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors (..., 3) that span the plane across a unit vector (..., 3), right-handed with it."""
    x, y = torch.eye(3, dtype=normal.dtype, device=normal.device)[:2]
    side = _cross(normal, torch.where(normal[..., :1].abs() > 0.9, y, x))
    side = side / side.norm(dim=-1, keepdim=True)
    return side, _cross(normal, side)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype != b.dtype:  # a GPU simulates in single precision, targets are double
        kind = torch.promote_types(a.dtype, b.dtype)
        a, b = a.to(kind), b.to(kind)
    return torch.linalg.cross(*torch.broadcast_tensors(a, b))


def unit_axis(number: int, like: Tensor) -> Tensor:
    """Return the unit vector (3,) along axis `number`, of the type and on the device of `like`."""
    return torch.eye(3, dtype=like.dtype, device=like.device)[number]


def compose(pos_a_b: Tensor, quat_a_b: Tensor, pos_b_c: Tensor, quat_b_c: Tensor) -> tuple[Tensor, Tensor]:
    """Pose of c in a, from the pose of b in a and of c in b: positions (..., 3) [m], quaternions (..., 4)."""
    return pos_a_b + quat_rotate(quat_a_b, pos_b_c), quat_multiply(quat_a_b, quat_b_c)


def invert(pos_a_b: Tensor, quat_a_b: Tensor) -> tuple[Tensor, Tensor]:
    """Pose of a in b, from the pose of b in a."""
    quat_b_a = quat_conjugate(quat_a_b)
    return -quat_rotate(quat_b_a, pos_a_b), quat_b_a
