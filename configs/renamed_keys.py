"""Earlier names of keys, values and group options, for saved configurations and commands.

An entry takes effect only where the old name is unknown to the dataclass and the new one is known.
"""

RENAMED_KEYS = {
    # training
    "start": "init_checkpoint",
    "copy": "init_from_teacher",
    "validation": "validation_objects",
    "validate_every": "validation_interval",
    "plateau": "early_stop_patience",
    "time_limit": "time_limit_min",
    "level_step": "disturbance_step",
    "epochs": "num_epochs",
    "minibatches": "num_minibatches",
    "encoder": "history_encoder",
    "paper": "reproduce_release",
    "mix": "distillation",
    "mix.by": "distillation.schedule",
    "mix.start": "distillation.rho_start",
    "mix.end": "distillation.rho_end",
    "mix.ceiling": "distillation.rho_max",
    "mix.imitation": "distillation.imitation_weight",
    "mix.reconstruction": "distillation.reconstruction_weight",
    "mix.window": "distillation.num_rollouts",
    "mix.keep": "distillation.samples_per_rollout",
    "mix.updates": "distillation.gradient_steps",
    "mix.batch": "distillation.batch_size",
    # an arm is a mount
    "arm": "mount",
    # evaluation
    "perception": "task.camera.model",
    "ray": "cluster",
    # task
    "task.vectors": "task.vector_frame",
    "task.prior": "task.use_scripted_grasp",
    "task.scripted": "task.scripted_grasp",
    "task.wrist.behind_m": "task.wrist.offset_m",
    "task.wrist.turn_rad": "task.wrist.max_turn_rad",
    "task.reset.camera": "task.reset.camera_placement",
    "task.reset.place_m": "task.reset.object_xy_range_m",
    "task.reset.palm_m": "task.reset.palm_xy_range_m",
    "task.reset.finger_rad": "task.reset.finger_range_rad",
    "task.reset.standoff_m": "task.reset.standoff_range_m",
    "task.view": "task.camera",
    "task.view.camera": "task.camera.model",
    "task.view.carried": "task.camera.move_with_palm",
    "task.view.period_steps": "task.camera.frame_interval_steps",
    "task.view.held_period_steps": "task.camera.hold_frame_interval_steps",
    "task.view.edge_loss": "task.camera.edge_dropout",
    "task.view.flying": "task.camera.flying_pixel_rate",
    "task.view.steep": "task.camera.include_grazing_angles",
    "task.randomize": "task.randomization",
    "task.randomize.sizes": "task.randomization.size_scales",
    "task.randomize.com_m": "task.randomization.com_range_m",
    "task.randomize.push_n": "task.randomization.max_push_n",
    "task.randomize.action_late": "task.randomization.late_action_probability",
    # GPU buffers
    "warp.matches": "warp.max_contacts_per_sensor",
    # hand.yaml
    "xml": "model",
    # parameters of ROS nodes
    "reach": "check_reachability",
    "carry_hz": "held_object_rate_hz",
    "palm_source": "palm_pose_source",
}
"""Old dotted key -> new dotted key, each from the top of its command."""

RENAMED_VALUES = {
    "precision": {"single": "fp32", "half": "bf16"},
    "task.use_scripted_grasp": {"on": True, "off": False},
    "task.camera.mode": {"frozen": "first_frame", "refreshed": "latest", "corrected": "tracked_updated"},
    "task.camera.model": {"model": "points"},
    "task.reset.approach": {"best": "scored"},
    "task.reset.camera_placement": {"on_axis": "overhead", "aside": "side", "both": "mixed"},
}
"""New dotted key -> old value -> new value; used where the key takes the new value and refuses the old one."""

FORMER_DEFAULTS = {"task.scripted_grasp.keypoint_floor_m": (0.0105, None, "keypoint_floor_fingers")}
"""Dotted key -> former default, present default, and the key beside it that came with the latter. A saved section with
all keys but that one has the former default, whose meaning is that of the present one."""

RENAMED_GROUPS = {"view": "camera", "randomize": "randomization", "stage": "recipe"}
"""Old group -> new group."""

RENAMED_OPTIONS = {
    "camera": {
        "frozen": "first_frame",
        "latest": "d435_latest",
        "refreshed": "d435_latest",
        "tracked": "d435_tracked",
        "tracked_updated": "d435",
        "corrected": "d435",
    }
}
"""New group -> old option -> new option."""
