"""Isaac Gym's tensor API on the engine: `refresh_*` reads flat tensors, `set_*` writes them.

Each environment holds two actors: 0 "hand", whose degrees of freedom are the fingers and whose root is the hand base,
and 1 "object". The palm servos and the arm are not actors: setting the root state of the hand places them, at rest.

    actor root states   (env * 2, 13)       position, quaternion xyzw, velocity, angular velocity
    dof states          (env * dof, 2)      position, velocity
    rigid body states   (env * body, 13)    hand bodies, then the object; under an arm, its links come first
    contact forces      (env * body, 3)     net, world frame

All float32, on the processor. Quaternions are xyzw here and in no other file.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dexgrasp.perception.transforms import compose
from dexgrasp.sim.envs.isaacgym.gymtorch import TensorHandle
from dexgrasp.sim.task.grasp_task import GraspTask

DOMAIN_ENV, DOMAIN_SIM = 1, 2
"""Whether an index counts within one environment or over all of them."""
ACTORS = ("hand", "object")
HAND, OBJECT = 0, 1
_XYZW, _WXYZ = [1, 2, 3, 0], [3, 0, 1, 2]


class Sim:
    """Holds the simulation of a task and the tensors acquired from it."""

    def __init__(self, task: GraspTask) -> None:
        self.engine, self.hand, self.num_envs = task.engine, task.hand, task.num_envs
        self.body_names = self.engine.body_names
        self.root_bodies = [self.body_names.index("palm"), self.body_names.index("object")]
        self.tensors: dict[str, Tensor] = {}


@dataclass(frozen=True)
class EnvHandle:
    """Identifies one environment of a simulation."""

    sim: Sim
    row: int


class Gym:
    """Provides the functions of Isaac Gym that training code calls, under their names."""

    def create_sim(self, task: GraspTask) -> Sim:
        """Return a simulation handle on an existing task; device, graphics and engine arguments are ignored."""
        return Sim(task)

    def prepare_sim(self, sim: Sim) -> bool:
        """Do nothing: the simulation is ready."""
        return sim.num_envs > 0

    def simulate(self, sim: Sim) -> None:
        """Run one physics step of `VecTask.dt` with the present targets."""
        sim.engine.simulate()

    def fetch_results(self, sim: Sim, wait: bool = True) -> None:
        """Do nothing: `simulate` is synchronous."""

    def get_env_count(self, sim: Sim) -> int:
        """Return the number of environments."""
        return sim.num_envs

    def get_sim_actor_count(self, sim: Sim) -> int:
        """Return the number of actors over all environments."""
        return sim.num_envs * len(ACTORS)

    def get_sim_dof_count(self, sim: Sim) -> int:
        """Return the number of finger joints over all environments."""
        return sim.num_envs * len(sim.hand.joint_names)

    def get_sim_rigid_body_count(self, sim: Sim) -> int:
        """Return the number of bodies over all environments."""
        return sim.num_envs * len(sim.body_names)

    def get_env(self, sim: Sim, index: int) -> EnvHandle:
        """Return the handle of one environment."""
        return EnvHandle(sim, index)

    def find_actor_handle(self, env: EnvHandle, name: str) -> int:
        """Return the actor "hand" or "object" within an environment."""
        return _find(name, ACTORS, "actor")

    def get_actor_index(self, env: EnvHandle, actor: int, domain: int = DOMAIN_SIM) -> int:
        """Return the row of an actor in the root states of its environment, or of all."""
        return actor + (env.row * len(ACTORS) if domain == DOMAIN_SIM else 0)

    def get_actor_dof_names(self, env: EnvHandle, actor: int) -> list[str]:
        """Return the names of the joints of an actor, in the order of the dof states."""
        return list(env.sim.hand.joint_names) if actor == HAND else []

    def find_actor_dof_index(self, env: EnvHandle, actor: int, name: str, domain: int = DOMAIN_SIM) -> int:
        """Return the row of a joint in the dof states of its environment, or of all."""
        names = self.get_actor_dof_names(env, actor)
        return _find(name, names, "dof") + (env.row * len(names) if domain == DOMAIN_SIM else 0)

    def get_actor_rigid_body_names(self, env: EnvHandle, actor: int) -> list[str]:
        """Return the names of the bodies of an actor, in the order of the rigid body states."""
        return [name for name in env.sim.body_names if (name == "object") == (actor == OBJECT)]

    def find_actor_rigid_body_index(self, env: EnvHandle, actor: int, name: str, domain: int = DOMAIN_SIM) -> int:
        """Return the row of a body in the rigid body states of its environment, or of all."""
        _find(name, self.get_actor_rigid_body_names(env, actor), "rigid body")
        names = env.sim.body_names
        return names.index(name) + (env.row * len(names) if domain == DOMAIN_SIM else 0)

    def acquire_actor_root_state_tensor(self, sim: Sim) -> TensorHandle:
        """Return a handle on the root states (env * actor, 13)."""
        return self._acquire(sim, "root")

    def acquire_dof_state_tensor(self, sim: Sim) -> TensorHandle:
        """Return a handle on the dof states (env * dof, 2)."""
        return self._acquire(sim, "dof")

    def acquire_rigid_body_state_tensor(self, sim: Sim) -> TensorHandle:
        """Return a handle on the rigid body states (env * body, 13)."""
        return self._acquire(sim, "body")

    def acquire_net_contact_force_tensor(self, sim: Sim) -> TensorHandle:
        """Return a handle on the net contact forces (env * body, 3)."""
        return self._acquire(sim, "contact")

    def _acquire(self, sim: Sim, kind: str) -> TensorHandle:
        if kind not in sim.tensors:
            sim.tensors[kind] = _READ[kind](sim)
        return TensorHandle(sim.tensors[kind])

    def refresh_actor_root_state_tensor(self, sim: Sim) -> bool:
        """Update the acquired root states."""
        return self._refresh(sim, "root")

    def refresh_dof_state_tensor(self, sim: Sim) -> bool:
        """Update the acquired dof states."""
        return self._refresh(sim, "dof")

    def refresh_rigid_body_state_tensor(self, sim: Sim) -> bool:
        """Update the acquired rigid body states."""
        return self._refresh(sim, "body")

    def refresh_net_contact_force_tensor(self, sim: Sim) -> bool:
        """Update the acquired net contact forces."""
        return self._refresh(sim, "contact")

    def _refresh(self, sim: Sim, kind: str) -> bool:
        if kind not in sim.tensors:
            raise RuntimeError(
                f"the {kind} tensor is not acquired: acquire it before the refresh; acquired: {sorted(sim.tensors)}"
            )
        sim.tensors[kind].copy_(_READ[kind](sim))
        return True

    def set_actor_root_state_tensor(self, sim: Sim, states: TensorHandle) -> bool:
        """Place all actors: objects with their velocities, hands at rest."""
        every = torch.arange(self.get_sim_actor_count(sim), dtype=torch.int32)
        return self.set_actor_root_state_tensor_indexed(sim, states, TensorHandle(every), len(every))

    def set_actor_root_state_tensor_indexed(
        self, sim: Sim, states: TensorHandle, actors: TensorHandle, count: int
    ) -> bool:
        """Place the first `count` of the actors of a list of indices over all environments."""
        roots = states.tensor.view(sim.num_envs, len(ACTORS), 13).double()
        hands, objects = _rows(actors, count, HAND), _rows(actors, count, OBJECT)
        if len(hands):
            base = roots[hands, HAND]
            palm = torch.tensor(sim.hand.palm_pos_b), torch.tensor(sim.hand.palm_quat_b)
            pos, quat = compose(base[:, :3], _unit(base[:, 3:7][:, _WXYZ]), *palm)
            sim.engine.write(hands, {"palm_pos_w": pos, "palm_quat_w": quat})
        if len(objects):
            root = roots[objects, OBJECT]
            pose = {"object_pos_w": root[:, :3], "object_quat_w": _unit(root[:, 3:7][:, _WXYZ])}
            sim.engine.write(objects, pose | {"object_linvel_w": root[:, 7:10], "object_angvel_w": root[:, 10:]})
        return True

    def set_dof_state_tensor(self, sim: Sim, states: TensorHandle) -> bool:
        """Set the states (env * dof, 2) of all finger joints; targets are kept."""
        return self._set_dof_states(sim, states, torch.arange(sim.num_envs))

    def set_dof_state_tensor_indexed(self, sim: Sim, states: TensorHandle, actors: TensorHandle, count: int) -> bool:
        """Set the finger joint states of the first `count` actors of a list; objects have no joints."""
        return self._set_dof_states(sim, states, _rows(actors, count, HAND))

    def _set_dof_states(self, sim: Sim, states: TensorHandle, rows: Tensor) -> bool:
        dof = states.tensor.view(sim.num_envs, -1, 2)[rows]
        sim.engine.write(rows, {"joint_pos": dof[..., 0], "joint_vel": dof[..., 1]})
        return True

    def set_dof_position_target_tensor(self, sim: Sim, targets: TensorHandle) -> bool:
        """Set the targets (env * dof,) [rad] of all finger servos; coupled joints have none."""
        return self._set_targets(sim, targets, torch.arange(sim.num_envs))

    def set_dof_position_target_tensor_indexed(
        self, sim: Sim, targets: TensorHandle, actors: TensorHandle, count: int
    ) -> bool:
        """Set the servo targets of the first `count` actors of a list."""
        return self._set_targets(sim, targets, _rows(actors, count, HAND))

    def _set_targets(self, sim: Sim, targets: TensorHandle, rows: Tensor) -> bool:
        wanted = targets.tensor.view(sim.num_envs, len(sim.hand.joint_names))[rows]
        sim.engine.write(rows, {"joint_target": sim.hand.motors.positions(wanted)})
        return True


_GYM = Gym()


def acquire_gym() -> Gym:
    """Return the `Gym`, which holds no state."""
    return _GYM


def _bodies(sim: Sim) -> Tensor:
    """Return body states (env, body, 13) float32 with quaternions xyzw."""
    states = sim.engine.body_states().float()
    return torch.cat([states[..., :3], states[..., 3:7][..., _XYZW], states[..., 7:]], dim=-1)


def _dofs(sim: Sim) -> Tensor:
    return torch.stack([sim.engine.state.joint_pos, sim.engine.state.joint_vel], dim=-1).float().flatten(0, 1)


_READ = {
    "root": lambda sim: _bodies(sim)[:, sim.root_bodies].flatten(0, 1),
    "dof": _dofs,
    "body": lambda sim: _bodies(sim).flatten(0, 1),
    "contact": lambda sim: sim.engine.contact_forces().float().flatten(0, 1),
}


def _rows(actors: TensorHandle, count: int, kind: int) -> Tensor:
    """Return the sorted environments whose actor of that kind is among the first `count` indices."""
    chosen = actors.tensor.flatten()[:count].long()
    return torch.unique(chosen[chosen % len(ACTORS) == kind] // len(ACTORS))


def _unit(quat: Tensor) -> Tensor:
    return quat / quat.norm(dim=-1, keepdim=True)


def _find(name: str, names: list[str] | tuple[str, ...], kind: str) -> int:
    if name not in names:
        raise ValueError(f"no {kind} '{name}'; there are {list(names)}")
    return names.index(name)
