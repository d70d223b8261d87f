"""The commands of `dexgrasp`, as a table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command: its words, the dataclass that configures it, and the function that runs it."""

    words: str
    """Name as typed: `objects import`. Its YAML has underscores in place of the blanks."""
    summary: str
    """One line of help."""
    schema: str
    """module:Class of the configuration."""
    function: str
    """module:function, called with the configuration; may return an exit status."""
    positional: tuple[str, ...] = ()
    """Keys that may be given without `key=`, in this order."""
    former: str = ""
    """Former name of the command, accepted for one release."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(former, present) names of keys, accepted for one release."""

    @property
    def config(self) -> str:
        """Name of its YAML under configs/."""
        return self.words.replace(" ", "_")


COMMANDS = (
    Command(
        "demo",
        "Let a hand pick up the shipped objects; ends with the success rate, a video and a report.",
        "policies.evaluate_cfg:EvaluateCfg",
        "policies.demo:demo",
    ),
    Command(
        "objects generate",
        "Make a library of objects from families of shapes; the same seed gives the same bytes.",
        "sim.objects.commands:GenerateCfg",
        "sim.objects.commands:generate",
    ),
    Command(
        "objects import",
        "Turn a folder of meshes into a library: repair, convex pieces, mass, resting poses.",
        "sim.objects.commands:ImportCfg",
        "sim.objects.commands:import_meshes",
        ("source",),
    ),
    Command(
        "objects show",
        "Draw a contact sheet of a library.",
        "sim.objects.commands:ShowCfg",
        "sim.objects.commands:show",
        ("library",),
    ),
    Command(
        "objects compare",
        "Compare a library with a folder of meshes: sizes, masses, shapes.",
        "sim.objects.commands:CompareCfg",
        "sim.objects.commands:compare",
        ("library", "meshes"),
    ),
    Command("train", "Train a teacher or a student.", "policies.train:TrainCfg", "policies.train:train"),
    Command(
        "evaluate",
        "Measure the success rate of a policy on a set of objects, with and without disturbances.",
        "policies.evaluate_cfg:EvaluateCfg",
        "policies.evaluate:evaluate",
    ),
    Command(
        "compare",
        "Run two policies on the same trials; exit status 1 if the second does significantly worse.",
        "policies.compare:CompareCfg",
        "policies.compare:compare",
        ("a", "b"),
    ),
    Command(
        "export",
        "Write a trained student as a bundle that a robot runs; refused unless it repeats its checkpoint.",
        "policies.export:ExportCfg",
        "policies.export:export",
        renamed=(("run", "policy"),),
    ),
    Command(
        "publish",
        "Put a trained policy, its bundle and its model card into one folder.",
        "policies.ship:ShipCfg",
        "policies.ship:ship",
        former="ship",
        renamed=(("run", "policy"),),
    ),
    Command(
        "checkpoint upgrade",
        "Convert checkpoints of older versions into the present format; no code in them is run.",
        "policies.checkpoint_upgrade:UpgradeCfg",
        "policies.checkpoint_upgrade:upgrade",
        ("source",),
    ),
    Command(
        "checkpoint sb3",
        "Write a trained policy as a zip file that stable_baselines3.PPO.load opens.",
        "policies.checkpoint_upgrade:Sb3Cfg",
        "policies.checkpoint_upgrade:export_sb3",
        ("policy",),
    ),
    Command(
        "replay",
        "Run perception and policy again on a recorded bag; exit status 1 at the first difference.",
        "dexgrasp_ros.replay_cfg:ReplayCfg",
        "dexgrasp_ros.replay:replay",
        ("bag",),
        renamed=(
            ("policy=true", "compare_policy=true"),
            ("policy=false", "compare_policy=false"),
            ("bundle", "policy"),
        ),
    ),
    Command(
        "bench engine",
        "Measure the speed and the memory of the batched simulation.",
        "policies.bench:BenchCfg",
        "policies.bench:bench_engine",
    ),
    Command(
        "bench gpu",
        "Measure engine=warp on a GPU: parity with the CPU, stepping, learning, buffers.",
        "policies.bench_gpu:BenchGpuCfg",
        "policies.bench_gpu:bench_gpu",
    ),
    Command(
        "bench physics",
        "Measure what each physics preset costs and how far its outcomes agree with the reference.",
        "policies.presets:PresetsCfg",
        "policies.presets:bench_physics",
    ),
    Command(
        "bench perception",
        "Measure the time from a depth image to the features, stage by stage.",
        "policies.bench_perception:BenchPerceptionCfg",
        "policies.bench_perception:bench_perception",
    ),
    Command(
        "bench segmentation",
        "Measure how well objects are found in synthetic depth images with truth.",
        "policies.bench_segmentation:BenchSegmentationCfg",
        "policies.bench_segmentation:bench_segmentation",
    ),
    Command(
        "bench cameras",
        "Compare the camera model of training with rendered depth images, in the vectors that a policy observes.",
        "policies.bench_views:ViewsCfg",
        "policies.bench_views:bench_views",
        former="bench views",
    ),
    Command(
        "bench tracking",
        "Compare the tracked object points with the true ones, over whole episodes.",
        "policies.bench_views:ViewsCfg",
        "policies.bench_views:bench_views",
    ),
    Command(
        "bench ros",
        "Grasp over ROS 2 with a simulated robot; milliseconds from the depth image's stamp to the command.",
        "dexgrasp_ros.bench:RosBenchCfg",
        "dexgrasp_ros.bench:bench_ros",
        renamed=(("bundle", "policy"),),
    ),
    Command(
        "bench ablations",
        "Train variants of the method at equal budget and compare them.",
        "policies.ablations:AblationsCfg",
        "policies.ablations:bench_ablations",
    ),
    Command(
        "bench deploy",
        "Measure the latency of a control step of an exported policy and of the safety gate.",
        "policies.bench_runtime:BenchRuntimeCfg",
        "policies.bench_runtime:bench_runtime",
        former="bench runtime",
    ),
    Command(
        "calibrate board",
        "Draw the calibration board to print.",
        "policies.calibration:PrintBoardCfg",
        "policies.calibration:print_board",
    ),
    Command(
        "calibrate camera",
        "Find where the camera stands from images of the board; writes the YAML that others read.",
        "policies.calibration:CalibrateCameraCfg",
        "policies.calibration:calibrate_camera",
        ("source",),
    ),
    Command(
        "randomization show",
        "Show what domain randomisation draws: ranges, their sources, one draw, histograms.",
        "policies.randomization:ShowRandomizationCfg",
        "policies.randomization:show_randomization",
    ),
    Command(
        "viewer",
        "Show depth images, perception results, the hand and a policy in a browser.",
        "policies.view:ViewPageCfg",
        "policies.view:view",
        ("perception",),
        former="view",
    ),
)
