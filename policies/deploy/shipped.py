"""Policies on disk by name: shipped policies, run directories, bundles.

Needs neither torch nor the simulator.
"""

from collections.abc import Sequence
from pathlib import Path

from dexgrasp import assets, configs
from dexgrasp.policies.deploy.bundle import CONTRACT
from dexgrasp.utils.output import words_of_kind
from dexgrasp.utils.readers import read_json_object
from dexgrasp.utils.text import did_you_mean


class PolicyNotFoundError(FileNotFoundError):
    """Error of an unknown policy name; the message lists accepted paths and shipped policies."""

    def __init__(self, name: str, key: str, expected: str, also: Sequence[str] = (), stage: str = "") -> None:
        """`key`: the option that was given; `expected`: accepted paths, in words; `also`: further accepted names.

        `stage`: stage of the shipped policies that fit; empty: any.
        """
        path, names = place(name), [*also, *(known for known in assets.policies() if known.endswith(stage))]
        what = f"no policy '{name}'.{_hint(name, names)}"
        if path.exists():
            what = _what_it_trains(path) or f"{path} holds no such policy."
        super().__init__(f"{key}: {what} Expected {', '.join(names)}, or the path of {expected}")


def _hint(name: str, names: Sequence[str]) -> str:
    """Return a sentence with what may have been meant, one of `names`; empty where nothing is like it."""
    similar = [known for known in names if known.endswith(f"/{name}")]
    return f" Did you mean {' or '.join(map(repr, similar))}?" if similar else did_you_mean(name, names)


def _what_it_trains(path: Path) -> str:
    """Return the sentence for a run of another command than `train`, with its policy; empty for other paths."""
    try:
        facts, cfg = read_json_object(path / "run.json"), configs.read_plain(path / "config.yaml")
    except (OSError, ValueError):
        return ""
    kind, words = facts.get("kind"), facts.get("command")
    if not isinstance(kind, str) or kind == "train":
        return ""
    command = "demo" if isinstance(words, list) and words[1:2] == ["demo"] else words_of_kind(kind)
    policy = f"; its policy is {cfg['policy']}" if isinstance(cfg.get("policy"), str) else ""
    return f"{path} is a run of `{command}`, which trains nothing{policy}."


def place(name: str) -> Path:
    """Return the path `name`, or the folder of the shipped policy HAND/STAGE where no such path exists."""
    folder = assets.ROOT / "policies" / name
    return folder if not Path(name).exists() and folder.is_dir() else Path(name)


def bundle_of(name: str) -> Path | None:
    """Return the bundle directory of a policy, or None.

    The directory is the path itself or its subfolder `bundle`.
    """
    path = place(name)
    return next((folder for folder in (path, path / "bundle") if (folder / CONTRACT).is_file()), None)


def find_bundle(name: str, key: str = "policy") -> Path:
    """Return the bundle directory of a policy; raises PolicyNotFoundError.

    `key`: the option in its message.
    """
    found = bundle_of(name)
    if found is None:
        raise PolicyNotFoundError(name, key, f"a bundle directory ({CONTRACT}): dexgrasp export policy=... out=...")
    return found
