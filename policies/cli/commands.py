"""The commands of `dexgrasp`, as a table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CliCommand:
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
    """Keys that may be given without `key=`, in this order; one that ends in `...` takes all further words."""
    former: str = ""
    """Former name of the command, accepted for one release."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(former, present) names of keys, accepted for one release."""

    @property
    def config(self) -> str:
        """Name of its YAML under configs/."""
        return self.words.replace(" ", "_")


COMMANDS = (
    CliCommand(
        "demo",
        "Let a hand pick up the shipped objects; ends with the success rate, a video and a report.",
        "dexgrasp.policies.evaluation.config:EvaluateCfg",
        "dexgrasp.policies.evaluation.evaluate:demo",
    ),
    CliCommand(
        "objects generate",
        "Make a library of objects from families of shapes; the same seed gives the same bytes.",
        "dexgrasp.policies.cli.objects:GenerateCfg",
        "dexgrasp.policies.cli.objects:generate",
    ),
    CliCommand(
        "objects import",
        "Turn a folder of meshes into a library: repair, convex pieces, mass, resting poses.",
        "dexgrasp.policies.cli.objects:ImportCfg",
        "dexgrasp.policies.cli.objects:import_meshes",
        ("source",),
    ),
    CliCommand(
        "objects show",
        "Draw a contact sheet of a library.",
        "dexgrasp.policies.cli.objects:ShowCfg",
        "dexgrasp.policies.cli.objects:show",
        ("library",),
    ),
    CliCommand(
        "objects compare",
        "Compare a library with a folder of meshes: sizes, masses, shapes.",
        "dexgrasp.policies.cli.objects:CompareLibraryCfg",
        "dexgrasp.policies.cli.objects:compare",
        ("library", "meshes"),
    ),
    CliCommand(
        "train",
        "Train a teacher or a student.",
        "dexgrasp.policies.training.config:TrainCfg",
        "dexgrasp.policies.training.train:train",
    ),
    CliCommand(
        "evaluate",
        "Measure the success rate of a policy on a set of objects, with and without disturbances.",
        "dexgrasp.policies.evaluation.config:EvaluateCfg",
        "dexgrasp.policies.evaluation.evaluate:evaluate",
    ),
    CliCommand(
        "report",
        "Write the report of a stored evaluation again, or compare several side by side.",
        "dexgrasp.policies.evaluation.report:ReportCfg",
        "dexgrasp.policies.evaluation.report:report",
        ("runs...",),
    ),
    CliCommand(
        "video",
        "Record a stored trial of an evaluation as .mp4, .gif or .webp; exit status 1 if it ends differently.",
        "dexgrasp.policies.evaluation.videos:VideoCfg",
        "dexgrasp.policies.evaluation.videos:video",
        ("run",),
    ),
    CliCommand(
        "compare",
        "Run two policies on the same trials; exit status 1 if the second does significantly worse.",
        "dexgrasp.policies.evaluation.compare:CompareCfg",
        "dexgrasp.policies.evaluation.compare:compare",
        ("a", "b"),
    ),
    CliCommand(
        "export",
        "Write a trained student as a bundle that a robot runs; refused unless it repeats its checkpoint.",
        "dexgrasp.policies.export.export:ExportCfg",
        "dexgrasp.policies.export.export:export",
        renamed=(("run", "policy"),),
    ),
    CliCommand(
        "publish",
        "Put a trained policy, its bundle and its model card into one folder.",
        "dexgrasp.policies.export.model_card:PublishCfg",
        "dexgrasp.policies.export.model_card:publish",
        former="ship",
        renamed=(("run", "policy"),),
    ),
    CliCommand(
        "checkpoint upgrade",
        "Convert checkpoints of older versions into the present format; no code in them is run.",
        "dexgrasp.policies.cli.checkpoint:UpgradeCfg",
        "dexgrasp.policies.cli.checkpoint:upgrade",
        ("source",),
    ),
    CliCommand(
        "checkpoint sb3",
        "Write a trained policy as a zip file that stable_baselines3.PPO.load opens.",
        "dexgrasp.policies.cli.checkpoint:Sb3Cfg",
        "dexgrasp.policies.cli.checkpoint:export_sb3",
        ("policy",),
    ),
    CliCommand(
        "replay",
        "Run perception and policy again on a recorded bag; exit status 1 at the first difference.",
        "dexgrasp_ros.replay.config:ReplayCfg",
        "dexgrasp_ros.replay.replay:replay",
        ("bag",),
        renamed=(
            ("policy=true", "compare_policy=true"),
            ("policy=false", "compare_policy=false"),
            ("bundle", "policy"),
        ),
    ),
    CliCommand(
        "bench engine",
        "Measure the speed and the memory of the batched simulation.",
        "dexgrasp.policies.benchmarks.engine:BenchEngineCfg",
        "dexgrasp.policies.benchmarks.engine:bench_engine",
    ),
    CliCommand(
        "bench gpu",
        "Measure engine=warp on a GPU: parity with the CPU, stepping, learning, buffers.",
        "dexgrasp.policies.benchmarks.gpu:BenchGpuCfg",
        "dexgrasp.policies.benchmarks.gpu:bench_gpu",
    ),
    CliCommand(
        "bench physics",
        "Measure what each physics preset costs and how far its outcomes agree with the reference.",
        "dexgrasp.policies.benchmarks.physics_presets:BenchPhysicsCfg",
        "dexgrasp.policies.benchmarks.physics_presets:bench_physics",
    ),
    CliCommand(
        "bench perception",
        "Measure the time from a depth image to the features, stage by stage.",
        "dexgrasp.policies.benchmarks.perception:BenchPerceptionCfg",
        "dexgrasp.policies.benchmarks.perception:bench_perception",
    ),
    CliCommand(
        "bench segmentation",
        "Measure how well objects are found in synthetic depth images with truth.",
        "dexgrasp.policies.benchmarks.segmentation:BenchSegmentationCfg",
        "dexgrasp.policies.benchmarks.segmentation:bench_segmentation",
    ),
    CliCommand(
        "bench cameras",
        "Compare the camera model of training with rendered depth images, in the vectors that a policy observes.",
        "dexgrasp.policies.benchmarks.camera_models:BenchCamerasCfg",
        "dexgrasp.policies.benchmarks.camera_models:bench_cameras",
        former="bench views",
    ),
    CliCommand(
        "bench tracking",
        "Compare the tracked object points with the true ones, over whole episodes.",
        "dexgrasp.policies.benchmarks.camera_models:BenchCamerasCfg",
        "dexgrasp.policies.benchmarks.camera_models:bench_cameras",
    ),
    CliCommand(
        "bench ros",
        "Grasp over ROS 2 with a simulated robot; milliseconds from the depth image's stamp to the command.",
        "dexgrasp_ros.simulation.benchmark:BenchRosCfg",
        "dexgrasp_ros.simulation.benchmark:bench_ros",
        renamed=(("bundle", "policy"),),
    ),
    CliCommand(
        "bench ablations",
        "Train variants of the method at equal budget and compare them.",
        "dexgrasp.policies.benchmarks.ablations:BenchAblationsCfg",
        "dexgrasp.policies.benchmarks.ablations:bench_ablations",
    ),
    CliCommand(
        "bench deploy",
        "Measure the latency of a control step of an exported policy and of the safety gate.",
        "dexgrasp.policies.benchmarks.deploy:BenchDeployCfg",
        "dexgrasp.policies.benchmarks.deploy:bench_deploy",
        former="bench runtime",
    ),
    CliCommand(
        "calibrate board",
        "Draw the calibration board to print.",
        "dexgrasp.policies.cli.calibrate:PrintBoardCfg",
        "dexgrasp.policies.cli.calibrate:print_board",
    ),
    CliCommand(
        "calibrate camera",
        "Find where the camera stands from images of the board; writes the YAML that others read.",
        "dexgrasp.policies.cli.calibrate:CalibrateCameraCfg",
        "dexgrasp.policies.cli.calibrate:calibrate_camera",
        ("source",),
    ),
    CliCommand(
        "randomization show",
        "Show what domain randomisation draws: ranges, their sources, one draw, histograms.",
        "dexgrasp.policies.cli.randomization:ShowRandomizationCfg",
        "dexgrasp.policies.cli.randomization:show_randomization",
    ),
    CliCommand(
        "viewer",
        "Show depth images, perception results, the hand and a policy in a browser.",
        "dexgrasp.policies.viewer.app:ViewerCfg",
        "dexgrasp.policies.viewer.app:run_viewer",
        ("perception",),
        former="view",
    ),
)
