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
    out_is_file: bool = False
    """Whether `out` is a file rather than a folder."""
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
    "hands": "Hands and arms",
    "objects": "Objects",
    "robot": "Robot",
    "bench": "Benchmarks",
}
"""Titles of the overview's groups, in order."""

COMMANDS = (
    CliCommand(
        words="demo",
        summary="Let a hand pick up the shipped objects; ends with the success rate, a video and a report.",
        schema="dexgrasp.policies.evaluation.config:EvaluateCfg",
        function="dexgrasp.policies.evaluation.evaluate:demo",
        group="start",
        examples=(
            "demo",
            "demo trials=20 videos=1",
            "demo policy=leap/student objects=generated:36:test",
        ),
    ),
    CliCommand(
        words="list",
        summary="List the shipped policies, hands, arms, object libraries, or camera modes.",
        schema="dexgrasp.policies.cli.listing:ListCfg",
        function="dexgrasp.policies.cli.listing:list_assets",
        positional=("what",),
        group="start",
        examples=("list", "list policies", "list objects"),
    ),
    CliCommand(
        words="completion",
        summary="Print the script that completes commands, keys and values in a shell.",
        schema="dexgrasp.policies.cli.completion:CompletionCfg",
        function="dexgrasp.policies.cli.completion:print_script",
        positional=("shell",),
        group="start",
        examples=(
            "completion bash",
            "completion zsh",
            "completion bash > ~/.local/share/bash-completion/completions/dexgrasp",
        ),
    ),
    CliCommand(
        words="hands new",
        summary="Draft the hand.yaml of a model, with a picture: palm, fingers, thumb, keypoints, grasp styles.",
        schema="dexgrasp.policies.hands.commands:NewHandCfg",
        function="dexgrasp.policies.hands.commands:new",
        positional=("model",),
        group="hands",
        examples=(
            "hands new examples/three_finger_hand/hand.xml out=runs/my_hand",
            "hands new hand.urdf out=runs/my_hand root=palm_link",
            "hands new hand.xml out=runs/my_hand thumb=finger_4 name=my_hand",
        ),
    ),
    CliCommand(
        words="hands check",
        summary="Check a hand's description: contacts, palm frame, opposition, torques; draw it.",
        schema="dexgrasp.policies.hands.commands:CheckHandCfg",
        function="dexgrasp.policies.hands.commands:check",
        positional=("hand",),
        group="hands",
        out_is_file=True,
        examples=(
            "hands check allegro",
            "hands check examples/three_finger_hand",
            "hands check leap side=left out=runs/leap_left.png",
        ),
    ),
    CliCommand(
        words="hands show",
        summary="Show a hand in a browser while the scripted grasp moves it.",
        schema="dexgrasp.policies.viewer.app:ViewerCfg",
        function="dexgrasp.policies.viewer.app:run_viewer",
        positional=("hand",),
        group="hands",
        examples=("hands show leap", "hands show examples/three_finger_hand", "hands show allegro side=left"),
    ),
    CliCommand(
        words="hands tune",
        summary="Search the numbers of a hand's grasps on generated objects; prints success before and after.",
        schema="dexgrasp.policies.hands.tuning:TuneHandCfg",
        function="dexgrasp.policies.hands.tuning:tune",
        positional=("hand",),
        group="hands",
        examples=(
            "hands tune examples/three_finger_hand",
            "hands tune allegro generations=2 population=4 trials=8",
            "hands tune runs/my_hand/hand.yaml out=runs/my_hand/tuned",
        ),
    ),
    CliCommand(
        words="arms check",
        summary="Check an arm: joints, limits, base, wrist, and the part of palm poses over the table that it reaches.",
        schema="dexgrasp.policies.hands.arm_check:CheckArmCfg",
        function="dexgrasp.policies.hands.arm_check:check",
        positional=("arm",),
        group="hands",
        examples=(
            "arms check ur5e",
            "arms check path/to/arm.urdf",
            "arms check path/to/arm.urdf:base=base_link,tip=tool0 hand=leap poses=200",
        ),
    ),
    CliCommand(
        words="objects generate",
        summary="Make a library of objects from families of shapes; the same seed gives the same bytes.",
        schema="dexgrasp.policies.cli.objects:GenerateCfg",
        function="dexgrasp.policies.cli.objects:generate",
        group="objects",
        examples=(
            "objects generate out=runs/library n=200",
            "objects generate out=runs/mugs n=100 families=mug,cup",
            "objects generate out=runs/held_out n=200 split=test seed=1",
        ),
    ),
    CliCommand(
        words="objects import",
        summary="Turn a folder of meshes into a library: repair, convex pieces, mass, resting poses.",
        schema="dexgrasp.policies.cli.objects:ImportCfg",
        function="dexgrasp.policies.cli.objects:import_meshes",
        positional=("source",),
        group="objects",
        examples=(
            "objects import meshes out=runs/library",
            "objects import meshes out=runs/library size=0.15",
            "objects import meshes out=runs/library decomposition=coacd density=400",
        ),
    ),
    CliCommand(
        words="objects scan",
        summary="Scan a thing with a depth camera and add it to a library in true size.",
        schema="dexgrasp.policies.real_to_sim.scan:ScanCfg",
        function="dexgrasp.policies.real_to_sim.scan:scan",
        positional=("source",),
        group="objects",
        examples=(
            "objects scan frames out=runs/my_things name=mug",
            "objects scan realsense out=runs/my_things name=mug mass=0.31",
            "objects scan frames out=runs/my_things poses=odometry",
        ),
    ),
    CliCommand(
        words="objects show",
        summary="Draw a contact sheet of a library.",
        schema="dexgrasp.policies.cli.objects:ShowCfg",
        function="dexgrasp.policies.cli.objects:show",
        positional=("library",),
        group="objects",
        out_is_file=True,
        examples=(
            "objects show shipped",
            "objects show runs/library out=runs/library.png",
            "objects show shipped pieces=true most=36",
        ),
    ),
    CliCommand(
        words="objects compare",
        summary="Compare a library with a folder of meshes: sizes, masses, shapes.",
        schema="dexgrasp.policies.cli.objects:CompareLibraryCfg",
        function="dexgrasp.policies.cli.objects:compare",
        positional=("library", "meshes"),
        group="objects",
        examples=(
            "objects compare shipped meshes",
            "objects compare runs/library meshes",
            "objects compare generated:200 meshes out=runs/sizes",
        ),
    ),
    CliCommand(
        words="train",
        summary="Train a teacher or a student.",
        schema="dexgrasp.policies.training.config:TrainCfg",
        function="dexgrasp.policies.training.train:train",
        group="train",
        examples=(
            "train hand=allegro out=runs/teacher",
            "train recipe=student teacher=runs/teacher out=runs/student",
            "train config=runs/teacher seed=1,2,3 -m out=runs/seeds",
        ),
    ),
    CliCommand(
        words="evaluate",
        summary="Measure the success rate of a policy on a set of objects, with and without disturbances.",
        schema="dexgrasp.policies.evaluation.config:EvaluateCfg",
        function="dexgrasp.policies.evaluation.evaluate:evaluate",
        group="measure",
        examples=(
            "evaluate policy=allegro/student",
            "evaluate policy=allegro/student objects=generated:216:test disturbance=all trials=1000",
            "evaluate policy=allegro/student seed=1,2,3 -m out=runs/seeds",
        ),
    ),
    CliCommand(
        words="report",
        summary="Write the report of a stored evaluation again, or compare several side by side.",
        schema="dexgrasp.policies.evaluation.report:ReportCfg",
        function="dexgrasp.policies.evaluation.report:report",
        positional=("runs...",),
        group="measure",
        out_is_file=True,
        examples=("report runs/a", "report runs/a runs/b", "report runs/a runs/b out=runs/comparison.html"),
    ),
    CliCommand(
        words="video",
        summary="Record a stored trial of an evaluation as .mp4, .gif or .webp; exit status 1 if it ends differently.",
        schema="dexgrasp.policies.evaluation.videos:VideoCfg",
        function="dexgrasp.policies.evaluation.videos:video",
        positional=("run",),
        group="measure",
        out_is_file=True,
        examples=(
            "video runs/a trial=3 out=runs/grasp.mp4",
            "video runs/a trial=3 out=runs/grasp.gif width=480",
            "video runs/a trial=3 out=runs/grasp.webp speed=2",
        ),
    ),
    CliCommand(
        words="compare",
        summary="Run two policies on the same trials; exit status 1 if the second does significantly worse.",
        schema="dexgrasp.policies.evaluation.compare:CompareCfg",
        function="dexgrasp.policies.evaluation.compare:compare",
        positional=("a", "b"),
        group="measure",
        examples=(
            "compare synergy allegro/student",
            "compare allegro/teacher allegro/student trials=1000",
            "compare synergy allegro/student disturbance=force out=runs/compare",
        ),
    ),
    CliCommand(
        words="benchmark",
        summary="Measure a policy on a public object set by a fixed protocol; prints one row of JSON.",
        schema="dexgrasp.policies.public_benchmark.run:PublicBenchmarkCfg",
        function="dexgrasp.policies.public_benchmark.run:benchmark",
        positional=("benchmark", "folder"),
        group="measure",
        examples=(
            "benchmark ycb path/to/YCB_Dataset/ycb policy=allegro/student out=runs/ycb",
            "benchmark random_urdfs path/to/pybullet_data/random_urdfs quick=true",
            "benchmark dexgraspnet75 path/to/object_75meshdata policy=leap/student cluster=auto out=runs/dexgraspnet",
        ),
    ),
    CliCommand(
        words="benchmark validate",
        summary="Check rows of `benchmark`: keys, counts, intervals, hashes, protocol, repetitions.",
        schema="dexgrasp.policies.public_benchmark.rows:ValidateBenchmarkCfg",
        function="dexgrasp.policies.public_benchmark.rows:validate",
        positional=("file",),
        group="measure",
        examples=(
            "benchmark validate rows.jsonl",
            "benchmark validate docs/results/benchmark.jsonl",
            "benchmark validate runs/ycb/row.json",
        ),
    ),
    CliCommand(
        words="benchmark dexgraspbench",
        summary="Play grasps of DexGraspBench under its rule; prints successes beside its own verdicts.",
        schema="dexgrasp.policies.dexgraspbench.play_grasps:PlayGraspsCfg",
        function="dexgrasp.policies.dexgraspbench.play_grasps:play_grasps",
        positional=("folder",),
        group="measure",
        examples=(
            "benchmark dexgraspbench path/to/DexGraspBench",
            "benchmark dexgraspbench path/to/DexGraspBench physics=dexgraspbench most=40 out=runs/shadow",
            "benchmark dexgraspbench runs/grasps grasps=output/dexgrasp_allegro hand=path/to/right_hand.xml",
        ),
    ),
    CliCommand(
        words="benchmark grasps",
        summary="Write the final grasps of an evaluation in the format of DexGraspBench.",
        schema="dexgrasp.policies.dexgraspbench.write_grasps:WriteGraspsCfg",
        function="dexgrasp.policies.dexgraspbench.write_grasps:write_grasps",
        positional=("run",),
        group="measure",
        examples=(
            "benchmark grasps runs/a hand_model=path/to/DexGraspBench/assets/hand/allegro/right_hand.xml",
            "benchmark grasps runs/a hand_model=path/to/right_hand.xml out=runs/grasps",
            "benchmark grasps runs/a hand_model=path/to/right_hand.xml most=20",
        ),
    ),
    CliCommand(
        words="export",
        summary="Write a trained student as a bundle that a robot runs; refused unless it repeats its checkpoint.",
        schema="dexgrasp.policies.export.export:ExportCfg",
        function="dexgrasp.policies.export.export:export",
        renamed=(("run", "policy"),),
        group="robot",
        examples=(
            "export policy=runs/student out=runs/bundle",
            "export policy=allegro/student out=runs/bundle",
            "export policy=runs/student out=runs/bundle trials=32 objects=runs/library",
        ),
    ),
    CliCommand(
        words="publish",
        summary="Put a trained policy, its bundle and its model card into one folder.",
        schema="dexgrasp.policies.export.model_card:PublishCfg",
        function="dexgrasp.policies.export.model_card:publish",
        former="ship",
        renamed=(("run", "policy"),),
        group="robot",
        examples=(
            "publish policy=runs/student out=runs/published",
            "publish policy=runs/student out=runs/published results=[runs/eval_a,runs/eval_b]",
            "publish policy=runs/refined out=runs/published history=runs/student",
        ),
    ),
    CliCommand(
        words="checkpoint upgrade",
        summary="Convert checkpoints of older versions into the present format; no code in them is run.",
        schema="dexgrasp.policies.cli.checkpoint:UpgradeCfg",
        function="dexgrasp.policies.cli.checkpoint:upgrade",
        positional=("source",),
        group="train",
        examples=(
            "checkpoint upgrade runs/teacher",
            "checkpoint upgrade runs/teacher/last.zip",
            "checkpoint upgrade runs/teacher keep=false",
        ),
    ),
    CliCommand(
        words="checkpoint sb3",
        summary="Write a trained policy as a zip file that stable_baselines3.PPO.load opens.",
        schema="dexgrasp.policies.cli.checkpoint:Sb3Cfg",
        function="dexgrasp.policies.cli.checkpoint:export_sb3",
        positional=("policy",),
        group="train",
        out_is_file=True,
        examples=(
            "checkpoint sb3 allegro/teacher out=runs/teacher.zip",
            "checkpoint sb3 runs/student out=runs/student.zip",
            "checkpoint sb3 allegro/teacher out=runs/teacher.zip obs=teacher",
        ),
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
        group="robot",
        examples=(
            "replay recordings/grasp policy=allegro/student",
            "replay recordings/grasp policy=runs/bundle hand=leap arm=ur5e_scaled_trajectory",
            "replay recordings/grasp policy=runs/bundle compare_policy=false",
        ),
    ),
    CliCommand(
        words="bench engine",
        summary="Measure the speed and the memory of the batched simulation.",
        schema="dexgrasp.policies.benchmarks.engine:BenchEngineCfg",
        function="dexgrasp.policies.benchmarks.engine:bench_engine",
        group="bench",
        examples=(
            "bench engine",
            "bench engine num_envs=64,256 threads=1,8",
            "bench engine engine=warp num_envs=4096",
        ),
    ),
    CliCommand(
        words="bench gpu",
        summary="Measure engine=warp on a GPU: parity with the CPU, stepping, learning, buffers.",
        schema="dexgrasp.policies.benchmarks.gpu:BenchGpuCfg",
        function="dexgrasp.policies.benchmarks.gpu:bench_gpu",
        group="bench",
        examples=(
            "bench gpu",
            "bench gpu parts=stepping",
            "bench gpu num_envs=1024,4096 out=runs/gpu",
        ),
    ),
    CliCommand(
        words="bench physics",
        summary="Measure what each physics preset costs and how far its outcomes agree with the reference.",
        schema="dexgrasp.policies.benchmarks.physics_presets:BenchPhysicsCfg",
        function="dexgrasp.policies.benchmarks.physics_presets:bench_physics",
        group="bench",
        examples=(
            "bench physics",
            "bench physics trials=60",
            "bench physics policy=zero presets=reference,turbo",
        ),
    ),
    CliCommand(
        words="bench perception",
        summary="Measure the time from a depth image to the features, stage by stage.",
        schema="dexgrasp.policies.benchmarks.perception:BenchPerceptionCfg",
        function="dexgrasp.policies.benchmarks.perception:bench_perception",
        group="bench",
        examples=(
            "bench perception",
            "bench perception frames=50",
            "bench perception hand=leap out=runs/perception",
        ),
    ),
    CliCommand(
        words="bench segmentation",
        summary="Measure how well objects are found in synthetic depth images with truth.",
        schema="dexgrasp.policies.benchmarks.segmentation:BenchSegmentationCfg",
        function="dexgrasp.policies.benchmarks.segmentation:bench_segmentation",
        group="bench",
        examples=(
            "bench segmentation",
            "bench segmentation scenes=100",
            "bench segmentation scene=clutter objects=generated:216:test segment.stride=1",
        ),
    ),
    CliCommand(
        words="bench cameras",
        summary="Compare the camera model of training with rendered depth images, as a policy observes them.",
        schema="dexgrasp.policies.benchmarks.camera_models:BenchCamerasCfg",
        function="dexgrasp.policies.benchmarks.camera_models:bench_cameras",
        former="bench views",
        group="bench",
        examples=(
            "bench cameras",
            "bench cameras camera=d435_latest",
            "bench cameras trials=20 hand=leap",
        ),
    ),
    CliCommand(
        words="bench tracking",
        summary="Compare the tracked object points with the true ones, over whole episodes.",
        schema="dexgrasp.policies.benchmarks.camera_models:BenchCamerasCfg",
        function="dexgrasp.policies.benchmarks.camera_models:bench_cameras",
        group="bench",
        examples=(
            "bench tracking",
            "bench tracking trials=20",
            "bench tracking disturbance=shift3 camera=d435",
        ),
    ),
    CliCommand(
        words="bench ros",
        summary="Grasp over ROS 2 with a simulated robot; milliseconds from the depth image's stamp to the command.",
        schema="dexgrasp_ros.simulation.benchmark:BenchRosCfg",
        function="dexgrasp_ros.simulation.benchmark:bench_ros",
        renamed=(("bundle", "policy"),),
        group="bench",
        examples=(
            "bench ros",
            "bench ros policy=leap/student trials=5",
            "bench ros arm=path/to/arm.xml video=true out=runs/ros",
        ),
    ),
    CliCommand(
        words="bench ablations",
        summary="Train variants of the method at equal budget and compare them.",
        schema="dexgrasp.policies.benchmarks.ablations:BenchAblationsCfg",
        function="dexgrasp.policies.benchmarks.ablations:bench_ablations",
        group="bench",
        examples=(
            "bench ablations teacher=allegro/teacher",
            "bench ablations budget=20 teacher=allegro/teacher",
            "bench ablations teacher=allegro/teacher variants=[student,teacher] out=runs/ablations",
        ),
    ),
    CliCommand(
        words="bench deploy",
        summary="Measure the latency of a control step of an exported policy and of the safety gate.",
        schema="dexgrasp.policies.benchmarks.deploy:BenchDeployCfg",
        function="dexgrasp.policies.benchmarks.deploy:bench_deploy",
        former="bench runtime",
        group="bench",
        examples=(
            "bench deploy",
            "bench deploy policy=leap/student",
            "bench deploy policy=runs/bundle steps=10000",
        ),
    ),
    CliCommand(
        words="calibrate board",
        summary="Draw the calibration board to print.",
        schema="dexgrasp.policies.cli.calibrate:PrintBoardCfg",
        function="dexgrasp.policies.cli.calibrate:print_board",
        group="robot",
        examples=(
            "calibrate board",
            "calibrate board dpi=600",
            "calibrate board board.square_m=0.03 out=runs/board",
        ),
    ),
    CliCommand(
        words="calibrate camera",
        summary="Find where the camera stands from images of the board; writes the YAML that others read.",
        schema="dexgrasp.policies.cli.calibrate:CalibrateCameraCfg",
        function="dexgrasp.policies.cli.calibrate:calibrate_camera",
        positional=("source",),
        group="robot",
        examples=(
            "calibrate camera realsense",
            "calibrate camera images out=runs/calibration",
            "calibrate camera images mounted=flange",
        ),
    ),
    CliCommand(
        words="check scene",
        summary="Check what the camera sees against what policies were trained for; exit status 1 if an item is bad.",
        schema="dexgrasp.policies.real_to_sim.scene_check:CheckSceneCfg",
        function="dexgrasp.policies.real_to_sim.scene_check:check_scene",
        positional=("source",),
        group="robot",
        examples=(
            "check scene realsense camera_file=runs/calibration/camera.yaml",
            "check scene frames",
            "check scene recording.db3 camera_file=runs/calibration/camera.yaml frames=100",
        ),
    ),
    CliCommand(
        words="randomization show",
        summary="Show what domain randomisation draws: ranges, their sources, one draw, histograms.",
        schema="dexgrasp.policies.cli.randomization:ShowRandomizationCfg",
        function="dexgrasp.policies.cli.randomization:show_randomization",
        group="train",
        examples=(
            "randomization show",
            "randomization show randomization=paper",
            "randomization show n=10000 out=runs/randomization",
        ),
    ),
    CliCommand(
        words="viewer",
        summary="Show a policy in simulation, or perception results of depth images, in a browser.",
        schema="dexgrasp.policies.viewer.app:ViewerCfg",
        function="dexgrasp.policies.viewer.app:run_viewer",
        positional=("source",),
        renamed=(("perception", "source"),),
        former="view",
        group="start",
        examples=(
            "viewer policy=allegro/student",
            "viewer realsense camera_file=runs/calibration/camera.yaml",
            "viewer policy=synergy disturbance=force port=8090",
        ),
    ),
)
