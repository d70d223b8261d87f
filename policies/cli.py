"""The command `dexgrasp`: finds the command, loads its configuration, runs it, and turns failures into one line.

Nothing heavy is imported here: a command's own module is imported when it runs, and its help is read from its source.
"""

import importlib
import importlib.metadata
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import FrameType

import configs
from policies import usage
from policies.runs import log

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Command:
    """One command: its words, the dataclass that configures it, and the function that runs it."""

    words: str
    """As typed: `objects import`. Its YAML has underscores in place of the blanks."""
    summary: str
    schema: str = ""
    """module:Class of the configuration."""
    function: str = ""
    """module:function, called with the configuration; may return an exit status."""
    positional: tuple[str, ...] = ()
    """Keys that may be given without `key=`, in this order."""
    later: str = ""
    """Set while the command does not exist yet: what it arrives with."""

    @property
    def config(self) -> str:
        """Name of its YAML under configs/."""
        return self.words.replace(" ", "_")


COMMANDS = (
    Command(
        "demo",
        "Let a hand pick up the shipped objects; ends with the success rate, a video and a report.",
        "policies.evaluate:EvaluateCfg",
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
        "policies.evaluate:EvaluateCfg",
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
    ),
    Command(
        "ship",
        "Put a trained policy, its bundle and its model card into one folder.",
        "policies.ship:ShipCfg",
        "policies.ship:ship",
    ),
    Command(
        "bench engine",
        "Measure the speed and the memory of the batched simulation.",
        "policies.bench:BenchCfg",
        "policies.bench:bench_engine",
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
        "bench views",
        "Measure how far the camera of training is from drawn depth, in the vectors that a policy gets.",
        "policies.bench_views:ViewsCfg",
        "policies.bench_views:bench_views",
    ),
    Command(
        "bench ros",
        "Grasp over ROS 2 with a simulated robot; milliseconds from the depth image's stamp to the command.",
        "dexgrasp_ros.bench:RosBenchCfg",
        "dexgrasp_ros.bench:bench_ros",
    ),
    Command(
        "bench ablations",
        "Train variants of the method at equal budget and compare them.",
        "policies.ablations:AblationsCfg",
        "policies.ablations:bench_ablations",
    ),
    Command(
        "bench runtime",
        "Measure what a control step of an exported policy costs, and what the safety gate adds.",
        "policies.bench_runtime:BenchRuntimeCfg",
        "policies.bench_runtime:bench_runtime",
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
        "view",
        "Show the camera, what the pipeline finds, the hand and the policy in a browser.",
        "policies.view:ViewPageCfg",
        "policies.view:view",
        ("perception",),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (default: that of the process) and returns the exit status.

    0 done, 1 nobody read the output to its end, 2 misuse or an error in one line, 130 interrupted. DEXGRASP_DEBUG=1
    shows tracebacks instead.
    """
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:  # `dexgrasp ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _main(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage.overview([(command.words, command.summary) for command in COMMANDS]))
        return OK if given else MISUSED
    if given[0] == "--version":
        print(f"dexgrasp {importlib.metadata.version('dexgrasp')}")
        return OK
    command, rest = _find(given)
    if command is None:
        return _no_such_command(given)
    if any(word in ("-h", "--help") for word in rest):
        print(usage.command_help(command.words, command.summary, command.schema, command.config, command.positional))
        return OK
    if command.later:
        print(f"dexgrasp {command.words}: not yet: arrives with {command.later}", file=sys.stderr)
        return MISUSED
    return _guarded(command, rest)


def _find(given: Sequence[str]) -> tuple[Command | None, list[str]]:
    for length in (2, 1):
        for command in COMMANDS:
            if command.words == " ".join(given[:length]):
                return command, list(given[length:])
    return None, []


def _no_such_command(given: Sequence[str]) -> int:
    """Help of a group of commands (`dexgrasp objects`), or the nearest command."""
    group = [(command.words, command.summary) for command in COMMANDS if command.words.startswith(given[0] + " ")]
    if group and (len(given) == 1 or given[1] in ("-h", "--help")):
        print(usage.overview(group))
        return OK if len(given) > 1 else MISUSED
    names = [words for words, _ in group] or [command.words for command in COMMANDS]
    words = " ".join(given[:2] if group else given[:1])
    near = get_close_matches(words, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    print(f"dexgrasp: error: no command '{words}'{hint} Known: {', '.join(names)}", file=sys.stderr)
    return MISUSED


def _guarded(command: Command, words: Sequence[str]) -> int:
    handler = _Screen(logging.INFO)
    log.addHandler(handler)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(command, words)
    except KeyboardInterrupt as stop:
        print(f"dexgrasp {command.words}: interrupted; {str(stop) or 'what was finished is kept'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("DEXGRASP_DEBUG") == "1":
            raise
        print(f"dexgrasp {command.words}: error: {error}", file=sys.stderr)
        return MISUSED
    finally:
        signal.signal(signal.SIGTERM, previous)
        log.removeHandler(handler)


def _run(command: Command, words: Sequence[str]) -> int:
    overrides = _name_positionals(command, words)
    schema = _resolve(command.schema)
    cfg = configs.load(schema, command.config, overrides)
    status = _resolve(command.function)(cfg)
    return status if isinstance(status, int) else OK


def _name_positionals(command: Command, words: Sequence[str]) -> list[str]:
    """Gives each bare word the key of its place; words that are `key=value` already stay."""
    free = list(command.positional)
    overrides = []
    for word in words:
        if word.startswith("--"):
            raise configs.ConfigError(f"no option '{word}': options are written key=value (see --help)")
        if not re.match(r"\+{0,2}[A-Za-z_][\w.]*=", word) and free:
            word = f"{free.pop(0)}={word}"
        overrides.append(word)
    return overrides


def _resolve(name: str):  # noqa: ANN202 - a class or a function, as the table says
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Screen(logging.Handler):
    """The log on stderr as it is at that moment: a progress bar replaces it while it draws."""

    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        print(level + record.getMessage(), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
