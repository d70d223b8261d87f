"""Help: length, sections, every key with its type, true default and description; examples; lists."""

import re
import subprocess
import sys

import pytest
import yaml

from dexgrasp import assets, configs
from dexgrasp.policies.cli import completion, help, listing, option_docs
from dexgrasp.policies.cli import main as cli
from dexgrasp.policies.cli.commands import COMMANDS, GROUPS
from dexgrasp.policies.cli.main import main
from dexgrasp.utils.readers import Yaml

BY_WORDS = {command.words: command for command in COMMANDS}
each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)


def test_the_overview_has_groups_with_an_example_each_and_the_shipped_policies(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 60
    for title in GROUPS.values():
        (head,) = (line for line in lines if line.startswith(title))
        assert "for example: dexgrasp " in head
    assert f"Shipped policies: {', '.join(assets.policies())}" in lines[-2]
    assert len(assets.policies()) == 10
    assert not [command.words for command in COMMANDS if command.group not in GROUPS]


@each_command
def test_the_help_of_a_command_fits_on_a_page_and_has_three_examples(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    assert main([*command.words.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 60
    examples = re.findall(rf"^  dexgrasp ({command.words}(?: (?!-).*)?)$", text.partition("\n\nExamples\n")[2], re.M)
    assert tuple(examples[:3]) == command.examples
    known = [key.name for key in help.keys(command.schema, command.config)]
    shown = re.findall(r"^  ([\w.]+)=", text.partition("Also taken")[0], re.M)
    assert set(shown) <= set(known)
    assert len(shown) == len(set(shown)) <= 26
    hidden = re.search(r"^(\d+) more keys: ", text, re.M)
    assert len(known) == len(shown) + (int(hidden[1]) if hidden else 0)


@each_command
def test_help_and_completion_offer_m_where_it_is_accepted(command, capsys):
    assert main([*command.words.split(), "--help"]) == 0
    offered = "KEY=A,B,C -m" in capsys.readouterr().out
    assert offered == ("-m " in completion.candidates(COMMANDS, f"dexgrasp {command.words} -"))
    assert main([*command.words.split(), "-m"]) == 2
    err = capsys.readouterr().err
    assert ("-m runs several values of a key" if offered else "cannot be swept: leave out -m") in err


@each_command
def test_every_example_is_a_command_line_that_is_accepted(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    teacher = configs.load(cli._resolve(BY_WORDS["train"].schema), "train", ["seed=7"])
    configs.save(teacher, tmp_path / "runs/teacher/config.yaml")
    for name in ("runs/bundle", "runs/student"):  # what export and train would have left
        (tmp_path / name).mkdir(parents=True)
    for example in command.examples:
        words = [word for word in example.partition(">")[0].split()[len(command.words.split()) :] if word != "-m"]
        words = [cli.sweep.multirun.sweep_values(word)[0] if " -m" in example else word for word in words]
        cli.load(command, cli._name_positionals(command, words))


@each_command
def test_help_all_lists_every_key_of_the_dataclass(command, capsys):
    assert main([*command.words.split(), "--help-all"]) == 0
    listed = set(re.findall(r"^  ([\w.]+)=", capsys.readouterr().out, re.M))
    assert listed >= set(configs.known_keys(cli._resolve(command.schema)))


@each_command
def test_every_key_has_a_description(command):
    keys = help.keys(command.schema, command.config)
    assert not [key.name for key in keys if len(key.meaning) < 8]


def parsed(text, kind):
    """Return a shown default as its value: text stays text."""
    return text if kind in ("str", "path") else yaml.load(text, Loader=Yaml)


def plain(value):
    """Return a value as YAML holds it."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, dict, type(None))) else str(value)


def check_defaults(command, chosen, extra=()):
    keys = [key for key in help.keys(command.schema, command.config, chosen) if key.kind != "group"]
    required = [key for key in keys if key.default == "(required)"]
    given = [f"{key.name}={key.choices[0] if key.choices else 'x'}" for key in required]
    words = [*given, *(f"{group}={option}" for group, option in chosen.items()), *extra]
    loaded = configs.load(cli._resolve(command.schema), command.config, words)
    for key in keys:
        if key not in required:
            value = loaded
            for word in key.name.split("."):
                value = getattr(value, word)
            assert parsed(key.default, key.kind) == plain(value), key.name


@each_command
def test_the_defaults_that_help_shows_are_those_that_load_gives(command):
    check_defaults(command, {})


@pytest.mark.parametrize(
    "chosen",
    [
        {"recipe": "student"},
        {"recipe": "refinement"},
        {"recipe": "student", "camera": "d435_latest"},
        {"task": "paper", "physics": "turbo"},
    ],
    ids=str,
)
def test_help_shows_the_defaults_of_the_chosen_recipe(chosen):
    check_defaults(BY_WORDS["train"], chosen)


def test_the_defaults_of_a_recipe_in_the_output(capsys):
    assert main(["train", "recipe=student", "--help"]) == 0
    text = capsys.readouterr().out
    assert "  recipe=student " in text and "  iterations=240 " in text and "  camera=d435 " in text


def test_null_in_a_yaml_file_is_a_given_value():
    given = {"host": None, "port": 0, "plugins": []}
    keys = {key.name: key.default for key in option_docs._walk("dexgrasp.policies.viewer.app", "ViewerCfg", given, "")}
    assert (keys["host"], keys["port"], keys["plugins"], keys["seed"]) == ("null", "0", "[]", "0")


def test_help_below_a_prefix(capsys):
    assert main(["train", "--help", "task.reward"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  task.")]
    assert len(lines) == 14 and all(line.startswith("  task.reward.") for line in lines)
    assert main(["evaluate", "--help", "task.camera.mode"]) == 0
    assert "one of first_frame, latest, tracked, tracked_updated" in " ".join(capsys.readouterr().out.split())
    assert main(["train", "--help", "task.rewards"]) == 2
    assert "no keys 'task.rewards'. Did you mean 'task.reward'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train -m --help", "usage: dexgrasp train "),
        ("train --help --cfg", "usage: dexgrasp train "),
        ("viewer realsense --help", "usage: dexgrasp viewer "),
        ("viewer nowhere --help realsense", "  realsense."),
        ("train --help-all task.reward", "  task.reward."),
    ],
)
def test_words_in_front_of_help_are_no_prefixes_and_those_behind_it_are(words, expected, capsys):
    assert main(words.split()) == 0
    out, err = capsys.readouterr()
    assert out.startswith(expected) and not err
    assert expected.startswith("usage") or all(line.startswith((expected, "     ")) for line in out.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --fast --help", "no option '--fast': write fast=VALUE; flags are --help, "),
        ("train --help --fast", "no option '--fast'"),
        ("train recipe=nope --help", "group 'recipe' has no 'nope'. Known: refinement, student, teacher"),
        ("train --help-all task.rewards", "no keys 'task.rewards'. Did you mean 'task.reward'?"),
        ("train --help rho", "no keys 'rho'. Did you mean 'distillation.rho_start'?"),
        ("train --help task.hold", "no keys 'task.hold'. Did you mean 'task.hold_s'?"),
        ("train --help imitation_wieght", "Did you mean 'distillation.imitation_weight'?"),
    ],
)
def test_help_refuses_what_does_not_exist(words, message, capsys):
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("dexgrasp train: error: ") and message in err and err.count("\n") == 1


def test_choices_stand_in_place_of_type_names():
    keys = {key.name: key for key in help.keys("dexgrasp.policies.training.config:TrainCfg", "train")}
    assert keys["engine"].choices == ["cpu", "warp"]
    assert keys["recipe"].choices == ["refinement", "student", "teacher"]
    assert keys["physics.cone"].choices == ["pyramidal", "elliptic"]
    assert keys["reproduce_release"].choices == ["true", "false"]
    assert keys["seed"].choices == keys["objects"].choices == []


def test_help_is_fast():
    """Three tenths of a second of processor time, so that other work on the machine does not matter."""
    best = 9.0
    for _ in range(5):
        before_s = children_s()
        subprocess.run([sys.executable, "-m", "dexgrasp", "train", "--help"], capture_output=True, check=True)
        best = min(best, children_s() - before_s)
    assert best < 0.3


def children_s():
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("policies", ["^allegro/student +allegro +camera +98.8 % ", "^leap/teacher +leap +true state "]),
        ("hands", ["^ability +6 +10 ", "^allegro +16 +16 +right, left", "^leap +16 ", "^shadow +18 +22 "]),
        ("arms", ["^ur5e +6 +mount=ur5e"]),
        ("objects", ["^shipped +144 +one", "^generated:N ", "^random_urdfs +1000 "]),
        ("cameras", ["^first_frame +first_frame +Points of one", "^d435 +tracked_updated +Errors of a D435"]),
    ],
)
def test_lists(what, expected, capsys):
    assert main(["list", what]) == 0
    text = capsys.readouterr().out
    assert all(re.search(pattern, text, re.M) for pattern in expected), text


def test_list_alone_prints_every_table_and_each_fits_the_terminal(capsys, monkeypatch):
    monkeypatch.setattr("dexgrasp.utils.text.terminal_width", lambda: 80)
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^dexgrasp list (\w+)$", text, re.M) == ["policies", "hands", "arms", "objects", "cameras"]
    tables = [part.splitlines() for part in text.split("\n\n")]
    assert max(len(line) for table in tables for line in table if not line.startswith("made earlier")) <= 80
    rows = {line.split()[0]: line for line in tables[0]}
    assert rows["leap/teacher"].split("  ")[-1] == "scans"  # on one line


def test_the_success_in_the_list_is_that_of_the_model_card():
    rows = {row[0]: row for row in listing.policies()[1:]}
    assert list(rows) == assets.policies()
    card = (assets.path("policies/leap/teacher") / "README.md").read_text(encoding="utf-8")
    trials, success = rows["leap/teacher"][4], rows["leap/teacher"][3]
    assert re.search(rf"\| {trials} \| [\d.]+ % \| {re.escape(success)} \|", card)


def test_an_unknown_list_names_those_that_exist(capsys):
    assert main(["list", "polices"]) == 2
    assert "expects one of all, policies, hands, arms, objects, cameras, got 'polices'" in capsys.readouterr().err


def test_a_key_of_other_commands_is_told_with_those_that_take_it():
    """A key of one command, a group of three, a nested key of many, which are counted."""
    keys_of = {command: {key.name for key in option_docs.keys(command.schema, command.config)} for command in COMMANDS}
    for key in ("size", "randomization", "task.reward.lift", "policy"):
        takers = [f"`dexgrasp {command.words}`" for command, known in keys_of.items() if key in known]
        with pytest.raises(configs.ConfigError) as refused:
            cli.load_early(BY_WORDS["completion"], ["shell=bash", f"{key}=1"])
        assert f"{key}= is an option of {', '.join(takers[:3])}" in str(refused.value)
        assert (f" and {len(takers) - 3} other" in str(refused.value)) == (len(takers) > 3)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["reward.lift=1"], "unknown key 'reward.lift'. Did you mean 'task.reward.lift'?"),
        (["hold_s=1"], "unknown key 'hold_s'. Did you mean 'task.hold_s'?"),
        (["iteratoins=1"], "unknown key 'iteratoins'. Did you mean 'iterations'?"),
        (["size=5cm"], "size= is an option of `dexgrasp objects import`. Known keys:"),
        (["xyzzy=1"], "unknown key 'xyzzy'. Known keys:"),
        (["foo.bar=1"], "unknown key 'foo.bar'. Known keys:"),
    ],
)
def test_suggestions_by_suffix_and_only_where_a_name_is_near(words, hint, capsys):
    assert main(["train", *words]) == 2
    assert hint in capsys.readouterr().err
