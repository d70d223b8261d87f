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
        words="demo",
        summary="Let a hand pick up the shipped objects; ends with the success rate, a video and a report.",
        schema="dexgrasp.policies.evaluation.config:EvaluateCfg",
        function="dexgrasp.policies.evaluation.evaluate:demo",
    ),
    CliCommand(
        words="objects generate",
        summary="Make a library of objects from families of shapes; the same seed gives the same bytes.",
        schema="dexgrasp.policies.cli.objects:GenerateCfg",
        function="dexgrasp.policies.cli.objects:generate",
    ),
    CliCommand(
        words="objects import",
        summary="Turn a folder of meshes into a library: repair, convex pieces, mass, resting poses.",
        schema="dexgrasp.policies.cli.objects:ImportCfg",
        function="dexgrasp.policies.cli.objects:import_meshes",
        positional=("source",),
    ),
    CliCommand(
        words="objects show",
        summary="Draw a contact sheet of a library.",
        schema="dexgrasp.policies.cli.objects:ShowCfg",
        function="dexgrasp.policies.cli.objects:show",
        positional=("library",),
    ),
    CliCommand(
        words="objects compare",
        summary="Compare a library with a folder of meshes: sizes, masses, shapes.",
        schema="dexgrasp.policies.cli.objects:CompareLibraryCfg",
        function="dexgrasp.policies.cli.objects:compare",
        positional=("library", "meshes"),
    ),
    CliCommand(
        words="train",
        summary="Train a teacher or a student.",
        schema="dexgrasp.policies.training.config:TrainCfg",
        function="dexgrasp.policies.training.train:train",
    ),
    CliCommand(
        words="evaluate",
        summary="Measure the success rate of a policy on a set of objects, with and without disturbances.",
        schema="dexgrasp.policies.evaluation.config:EvaluateCfg",
        function="dexgrasp.policies.evaluation.evaluate:evaluate",
    ),
    CliCommand(
        words="report",
        summary="Write the report of a stored evaluation again, or compare several side by side.",
        schema="dexgrasp.policies.evaluation.report:ReportCfg",
        function="dexgrasp.policies.evaluation.report:report",
        positional=("runs...",),
    ),
    CliCommand(
        words="video",
        summary="Record a stored trial of an evaluation as .mp4, .gif or .webp; exit status 1 if it ends differently.",
        schema="dexgrasp.policies.evaluation.videos:VideoCfg",
        function="dexgrasp.policies.evaluation.videos:video",
        positional=("run",),
    ),
    CliCommand(
        words="compare",
        summary="Run two policies on the same trials; exit status 1 if the second does significantly worse.",
        schema="dexgrasp.policies.evaluation.compare:CompareCfg",
        function="dexgrasp.policies.evaluation.compare:compare",
        positional=("a", "b"),
    ),
    CliCommand(
        words="export",
        summary="Write a trained student as a bundle that a robot runs; refused unless it repeats its checkpoint.",
        schema="dexgrasp.policies.export.export:ExportCfg",
        function="dexgrasp.policies.export.export:export",
        renamed=(("run", "policy"),),
    ),
    CliCommand(
        words="publish",
        summary="Put a trained policy, its bundle and its model card into one folder.",
        schema="dexgrasp.policies.export.model_card:PublishCfg",
        function="dexgrasp.policies.export.model_card:publish",
        former="ship",
        renamed=(("run", "policy"),),
    ),
    CliCommand(
        words="checkpoint upgrade",
        summary="Convert checkpoints of older versions into the present format; no code in them is run.",
        schema="dexgrasp.policies.cli.checkpoint:UpgradeCfg",
        function="dexgrasp.policies.cli.checkpoint:upgrade",
        positional=("source",),
    ),
    CliCommand(
        words="checkpoint sb3",
        summary="Write a trained policy as a zip file that stable_baselines3.PPO.load opens.",
        schema="dexgrasp.policies.cli.checkpoint:Sb3Cfg",
        function="dexgrasp.policies.cli.checkpoint:export_sb3",
        positional=("policy",),
    ),
    CliCommand(
        words="replay",
        summary="Run perception and policy again on a recorded bag; exit status 1 at the first difference.",
        schema="dexgrasp_ros.replay.config:ReplayCfg",
        function="dexgrasp_ros.replay.replay:replay",
        positional=("bag",),
        renamed=(
            ("policy=true", "compare_policy=true"),
            ("policy=false", "compare_policy=false"),
            ("bundle", "policy"),
        ),
    ),
    CliCommand(
        words="bench engine",
        summary="Measure the speed and the memory of the batched simulation.",
        schema="dexgrasp.policies.benchmarks.engine:BenchEngineCfg",
        function="dexgrasp.policies.benchmarks.engine:bench_engine",
    ),
    CliCommand(
        words="bench gpu",
        summary="Measure engine=warp on a GPU: parity with the CPU, stepping, learning, buffers.",
        schema="dexgrasp.policies.benchmarks.gpu:BenchGpuCfg",
        function="dexgrasp.policies.benchmarks.gpu:bench_gpu",
    ),
    CliCommand(
        words="bench physics",
        summary="Measure what each physics preset costs and how far its outcomes agree with the reference.",
        schema="dexgrasp.policies.benchmarks.physics_presets:BenchPhysicsCfg",
        function="dexgrasp.policies.benchmarks.physics_presets:bench_physics",
    ),
    CliCommand(
        words="bench perception",
        summary="Measure the time from a depth image to the features, stage by stage.",
        schema="dexgrasp.policies.benchmarks.perception:BenchPerceptionCfg",
        function="dexgrasp.policies.benchmarks.perception:bench_perception",
    ),
    CliCommand(
        words="bench segmentation",
        summary="Measure how well objects are found in synthetic depth images with truth.",
        schema="dexgrasp.policies.benchmarks.segmentation:BenchSegmentationCfg",
        function="dexgrasp.policies.benchmarks.segmentation:bench_segmentation",
    ),
    CliCommand(
        words="bench cameras",
        summary="Compare the camera model of training with rendered depth images, in the vectors that a policy "
        "observes.",
        schema="dexgrasp.policies.benchmarks.camera_models:BenchCamerasCfg",
        function="dexgrasp.policies.benchmarks.camera_models:bench_cameras",
        former="bench views",
    ),
    CliCommand(
        words="bench tracking",
        summary="Compare the tracked object points with the true ones, over whole episodes.",
        schema="dexgrasp.policies.benchmarks.camera_models:BenchCamerasCfg",
        function="dexgrasp.policies.benchmarks.camera_models:bench_cameras",
    ),
    CliCommand(
        words="bench ros",
        summary="Grasp over ROS 2 with a simulated robot; milliseconds from the depth image's stamp to the command.",
        schema="dexgrasp_ros.simulation.benchmark:BenchRosCfg",
        function="dexgrasp_ros.simulation.benchmark:bench_ros",
        renamed=(("bundle", "policy"),),
    ),
    CliCommand(
        words="bench ablations",
        summary="Train variants of the method at equal budget and compare them.",
        schema="dexgrasp.policies.benchmarks.ablations:BenchAblationsCfg",
        function="dexgrasp.policies.benchmarks.ablations:bench_ablations",
    ),
    CliCommand(
        words="bench deploy",
        summary="Measure the latency of a control step of an exported policy and of the safety gate.",
        schema="dexgrasp.policies.benchmarks.deploy:BenchDeployCfg",
        function="dexgrasp.policies.benchmarks.deploy:bench_deploy",
        former="bench runtime",
    ),
    CliCommand(
        words="calibrate board",
        summary="Draw the calibration board to print.",
        schema="dexgrasp.policies.cli.calibrate:PrintBoardCfg",
        function="dexgrasp.policies.cli.calibrate:print_board",
    ),
    CliCommand(
        words="calibrate camera",
        summary="Find where the camera stands from images of the board; writes the YAML that others read.",
        schema="dexgrasp.policies.cli.calibrate:CalibrateCameraCfg",
        function="dexgrasp.policies.cli.calibrate:calibrate_camera",
        positional=("source",),
    ),
    CliCommand(
        words="randomization show",
        summary="Show what domain randomisation draws: ranges, their sources, one draw, histograms.",
        schema="dexgrasp.policies.cli.randomization:ShowRandomizationCfg",
        function="dexgrasp.policies.cli.randomization:show_randomization",
    ),
    CliCommand(
        words="viewer",
        summary="Show a policy in simulation, or what perception makes of depth images, in a browser.",
        schema="dexgrasp.policies.viewer.app:ViewerCfg",
        function="dexgrasp.policies.viewer.app:run_viewer",
        positional=("perception",),
        former="view",
    ),
)
