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
    """Keys that may be given without `key=`, in this order."""
    former: str = ""
    """Former name of the command, accepted for one release."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(former, present) names of keys, accepted for one release."""
    group: str = ""
    """Key of `GROUPS` under which the overview lists it."""
    examples: tuple[str, ...] = ()
    """Command lines without `dexgrasp`, the simplest first."""

    @property
    def config(self) -> str:
        """Name of its YAML under configs/."""
        return self.words.replace(" ", "_")


GROUPS = {
    "start": "Get started",
    "train": "Train",
    "measure": "Measure",
    "objects": "Objects",
    "robot": "Robot",
    "bench": "Benchmarks",
}
"""Titles of the overview's groups, in order."""

COMMANDS = (
    CliCommand(
        "demo",
        "Let a hand pick up the shipped objects; ends with the success rate, a video and a report.",
        "dexgrasp.policies.evaluation.config:EvaluateCfg",
        "dexgrasp.policies.evaluation.evaluate:demo",
        group="start",
        examples=(
            "demo",
            "demo trials=20 videos=1",
            "demo policy=leap/student objects=generated:36:test",
        ),
    ),
    CliCommand(
        "list",
        "List the shipped policies, hands, arms, object libraries, or camera modes.",
        "dexgrasp.policies.cli.listing:ListCfg",
        "dexgrasp.policies.cli.listing:list_assets",
        ("what",),
        group="start",
        examples=("list policies", "list objects", "list cameras"),
    ),
    CliCommand(
        "completion",
        "Print the script that completes commands, keys and values in a shell.",
        "dexgrasp.policies.cli.completion:CompletionCfg",
        "dexgrasp.policies.cli.completion:print_script",
        ("shell",),
        group="start",
        examples=(
            "completion bash",
            "completion zsh",
            "completion bash > ~/.local/share/bash-completion/completions/dexgrasp",
        ),
    ),
    CliCommand(
        "objects generate",
        "Make a library of objects from families of shapes; the same seed gives the same bytes.",
        "dexgrasp.policies.cli.objects:GenerateCfg",
        "dexgrasp.policies.cli.objects:generate",
        group="objects",
        examples=(
            "objects generate out=library n=200",
            "objects generate out=mugs n=100 families=mug,cup",
            "objects generate out=held_out n=200 split=test seed=1",
        ),
    ),
    CliCommand(
        "objects import",
        "Turn a folder of meshes into a library: repair, convex pieces, mass, resting poses.",
        "dexgrasp.policies.cli.objects:ImportCfg",
        "dexgrasp.policies.cli.objects:import_meshes",
        ("source",),
        group="objects",
        examples=(
            "objects import meshes out=library",
            "objects import meshes out=library scale=0.001",
            "objects import meshes out=library decomposition=coacd density=400",
        ),
    ),
    CliCommand(
        "objects show",
        "Draw a contact sheet of a library.",
        "dexgrasp.policies.cli.objects:ShowCfg",
        "dexgrasp.policies.cli.objects:show",
        ("library",),
        group="objects",
        examples=(
            "objects show shipped",
            "objects show library out=library.png",
            "objects show shipped pieces=true most=36",
        ),
    ),
    CliCommand(
        "objects compare",
        "Compare a library with a folder of meshes: sizes, masses, shapes.",
        "dexgrasp.policies.cli.objects:CompareLibraryCfg",
        "dexgrasp.policies.cli.objects:compare",
        ("library", "meshes"),
        group="objects",
        examples=(
            "objects compare shipped meshes",
            "objects compare library meshes",
            "objects compare generated:200 meshes out=runs/sizes",
        ),
    ),
    CliCommand(
        "train",
        "Train a teacher or a student.",
        "dexgrasp.policies.training.config:TrainCfg",
        "dexgrasp.policies.training.train:train",
        group="train",
        examples=(
            "train hand=allegro out=runs/teacher",
            "train recipe=student teacher=runs/teacher out=runs/student",
            "train config=runs/teacher seed=1,2,3 -m out=runs/seeds",
        ),
    ),
    CliCommand(
        "evaluate",
        "Measure the success rate of a policy on a set of objects, with and without disturbances.",
        "dexgrasp.policies.evaluation.config:EvaluateCfg",
        "dexgrasp.policies.evaluation.evaluate:evaluate",
        group="measure",
        examples=(
            "evaluate policy=allegro/student",
            "evaluate policy=allegro/student objects=generated:216:test disturbance=all trials=1000",
            "evaluate policy=allegro/student seed=1,2,3 -m out=runs/seeds",
        ),
    ),
    CliCommand(
        "compare",
        "Run two policies on the same trials; exit status 1 if the second does significantly worse.",
        "dexgrasp.policies.evaluation.compare:CompareCfg",
        "dexgrasp.policies.evaluation.compare:compare",
        ("a", "b"),
        group="measure",
        examples=(
            "compare synergy allegro/student",
            "compare allegro/teacher allegro/student trials=1000",
            "compare synergy allegro/student disturbance=force out=runs/compare",
        ),
    ),
    CliCommand(
        "export",
        "Write a trained student as a bundle that a robot runs; refused unless it repeats its checkpoint.",
        "dexgrasp.policies.export.export:ExportCfg",
        "dexgrasp.policies.export.export:export",
        renamed=(("run", "policy"),),
        group="robot",
        examples=(
            "export policy=runs/student out=runs/bundle",
            "export policy=allegro/student out=runs/bundle",
            "export policy=runs/student out=runs/bundle trials=32 objects=library",
        ),
    ),
    CliCommand(
        "publish",
        "Put a trained policy, its bundle and its model card into one folder.",
        "dexgrasp.policies.export.model_card:PublishCfg",
        "dexgrasp.policies.export.model_card:publish",
        former="ship",
        renamed=(("run", "policy"),),
        group="robot",
        examples=(
            "publish policy=runs/student out=published",
            "publish policy=runs/student out=published results=[runs/eval_a,runs/eval_b]",
            "publish policy=runs/refined out=published history=runs/student",
        ),
    ),
    CliCommand(
        "checkpoint upgrade",
        "Convert checkpoints of older versions into the present format; no code in them is run.",
        "dexgrasp.policies.cli.checkpoint:UpgradeCfg",
        "dexgrasp.policies.cli.checkpoint:upgrade",
        ("source",),
        group="train",
        examples=(
            "checkpoint upgrade runs/teacher",
            "checkpoint upgrade runs/teacher/last.zip",
            "checkpoint upgrade runs/teacher keep=false",
        ),
    ),
    CliCommand(
        "checkpoint sb3",
        "Write a trained policy as a zip file that stable_baselines3.PPO.load opens.",
        "dexgrasp.policies.cli.checkpoint:Sb3Cfg",
        "dexgrasp.policies.cli.checkpoint:export_sb3",
        ("policy",),
        group="train",
        examples=(
            "checkpoint sb3 allegro/teacher out=teacher.zip",
            "checkpoint sb3 runs/student out=student.zip",
            "checkpoint sb3 allegro/teacher out=teacher.zip group=teacher",
        ),
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
        group="robot",
        examples=(
            "replay recordings/grasp policy=allegro/student",
            "replay recordings/grasp policy=runs/bundle hand=leap arm=ur5e_scaled_trajectory",
            "replay recordings/grasp policy=runs/bundle compare_policy=false",
        ),
    ),
    CliCommand(
        "bench engine",
        "Measure the speed and the memory of the batched simulation.",
        "dexgrasp.policies.benchmarks.engine:BenchEngineCfg",
        "dexgrasp.policies.benchmarks.engine:bench_engine",
        group="bench",
        examples=(
            "bench engine",
            "bench engine num_envs=64,256 threads=1,8",
            "bench engine engine=warp num_envs=4096",
        ),
    ),
    CliCommand(
        "bench gpu",
        "Measure engine=warp on a GPU: parity with the CPU, stepping, learning, buffers.",
        "dexgrasp.policies.benchmarks.gpu:BenchGpuCfg",
        "dexgrasp.policies.benchmarks.gpu:bench_gpu",
        group="bench",
        examples=(
            "bench gpu",
            "bench gpu parts=stepping",
            "bench gpu num_envs=1024,4096 out=runs/gpu",
        ),
    ),
    CliCommand(
        "bench physics",
        "Measure what each physics preset costs and how far its outcomes agree with the reference.",
        "dexgrasp.policies.benchmarks.physics_presets:BenchPhysicsCfg",
        "dexgrasp.policies.benchmarks.physics_presets:bench_physics",
        group="bench",
        examples=(
            "bench physics",
            "bench physics trials=60",
            "bench physics policy=zero presets=reference,turbo",
        ),
    ),
    CliCommand(
        "bench perception",
        "Measure the time from a depth image to the features, stage by stage.",
        "dexgrasp.policies.benchmarks.perception:BenchPerceptionCfg",
        "dexgrasp.policies.benchmarks.perception:bench_perception",
        group="bench",
        examples=(
            "bench perception",
            "bench perception frames=50",
            "bench perception hand=leap out=runs/perception",
        ),
    ),
    CliCommand(
        "bench segmentation",
        "Measure how well objects are found in synthetic depth images with truth.",
        "dexgrasp.policies.benchmarks.segmentation:BenchSegmentationCfg",
        "dexgrasp.policies.benchmarks.segmentation:bench_segmentation",
        group="bench",
        examples=(
            "bench segmentation",
            "bench segmentation scenes=100",
            "bench segmentation objects=generated:36:test seed=5",
        ),
    ),
    CliCommand(
        "bench cameras",
        "Compare the camera model of training with rendered depth images, in the vectors that a policy observes.",
        "dexgrasp.policies.benchmarks.camera_models:BenchCamerasCfg",
        "dexgrasp.policies.benchmarks.camera_models:bench_cameras",
        former="bench views",
        group="bench",
        examples=(
            "bench cameras",
            "bench cameras camera=latest",
            "bench cameras trials=20 hand=leap",
        ),
    ),
    CliCommand(
        "bench tracking",
        "Compare the tracked object points with the true ones, over whole episodes.",
        "dexgrasp.policies.benchmarks.camera_models:BenchCamerasCfg",
        "dexgrasp.policies.benchmarks.camera_models:bench_cameras",
        group="bench",
        examples=(
            "bench tracking",
            "bench tracking trials=20",
            "bench tracking disturbance=shift3 camera=tracked_updated",
        ),
    ),
    CliCommand(
        "bench ros",
        "Grasp over ROS 2 with a simulated robot; milliseconds from the depth image's stamp to the command.",
        "dexgrasp_ros.simulation.benchmark:BenchRosCfg",
        "dexgrasp_ros.simulation.benchmark:bench_ros",
        renamed=(("bundle", "policy"),),
        group="bench",
        examples=(
            "bench ros",
            "bench ros policy=leap/student trials=5",
            "bench ros video=true out=runs/ros",
        ),
    ),
    CliCommand(
        "bench ablations",
        "Train variants of the method at equal budget and compare them.",
        "dexgrasp.policies.benchmarks.ablations:BenchAblationsCfg",
        "dexgrasp.policies.benchmarks.ablations:bench_ablations",
        group="bench",
        examples=(
            "bench ablations teacher=allegro/teacher",
            "bench ablations budget=20 teacher=allegro/teacher",
            "bench ablations teacher=allegro/teacher variants=[student,teacher] out=runs/ablations",
        ),
    ),
    CliCommand(
        "bench deploy",
        "Measure the latency of a control step of an exported policy and of the safety gate.",
        "dexgrasp.policies.benchmarks.deploy:BenchDeployCfg",
        "dexgrasp.policies.benchmarks.deploy:bench_deploy",
        former="bench runtime",
        group="bench",
        examples=(
            "bench deploy",
            "bench deploy policy=leap/student",
            "bench deploy policy=runs/bundle steps=10000",
        ),
    ),
    CliCommand(
        "calibrate board",
        "Draw the calibration board to print.",
        "dexgrasp.policies.cli.calibrate:PrintBoardCfg",
        "dexgrasp.policies.cli.calibrate:print_board",
        group="robot",
        examples=(
            "calibrate board",
            "calibrate board dpi=600",
            "calibrate board board.square_m=0.03 out=runs/board",
        ),
    ),
    CliCommand(
        "calibrate camera",
        "Find where the camera stands from images of the board; writes the YAML that others read.",
        "dexgrasp.policies.cli.calibrate:CalibrateCameraCfg",
        "dexgrasp.policies.cli.calibrate:calibrate_camera",
        ("source",),
        group="robot",
        examples=(
            "calibrate camera realsense",
            "calibrate camera images out=runs/calibration",
            "calibrate camera images mounted=flange",
        ),
    ),
    CliCommand(
        "randomization show",
        "Show what domain randomisation draws: ranges, their sources, one draw, histograms.",
        "dexgrasp.policies.cli.randomization:ShowRandomizationCfg",
        "dexgrasp.policies.cli.randomization:show_randomization",
        group="train",
        examples=(
            "randomization show",
            "randomization show randomization=paper",
            "randomization show n=10000 out=runs/randomization",
        ),
    ),
    CliCommand(
        "viewer",
        "Show depth images, perception results, the hand and a policy in a browser.",
        "dexgrasp.policies.viewer.app:ViewerCfg",
        "dexgrasp.policies.viewer.app:run_viewer",
        ("perception",),
        former="view",
        group="start",
        examples=(
            "viewer policy=allegro/student",
            "viewer realsense camera_file=runs/calibration/camera.yaml",
            "viewer policy=synergy disturbance=force port=8090",
        ),
    ),
)
