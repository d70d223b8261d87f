"""Import of a user's modules by name or file, before a configuration is built.

Registered tasks, rewards and other extensions are then available to the configuration.
"""

import ast
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from dexgrasp.utils.files import expand_user


class PluginError(ImportError):
    """A module of `plugins=` that cannot be imported; the message says where it failed."""


def import_plugins(names: Sequence[str]) -> None:
    """Import modules by name, from the path or the working directory, or as .py files. Raises PluginError."""
    for name in names:
        try:
            _import(name)
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and name.startswith(error.name or " "):
                advice = "give a module that Python can import (package.module), or a file ending in .py"
                raise PluginError(f"plugins={name}: there is no such module: {advice}") from error
            raise PluginError(f"plugins={name}: {_last_line(error)}") from error


def plugin_names(plugins: str | Sequence[str]) -> list[str]:
    """Return the module names of the option `plugins`: a sequence, or comma-separated text."""
    if not isinstance(plugins, str):
        return list(plugins)
    return [name.strip() for name in plugins.strip("[]").split(",") if name.strip()]


def refuse_unnamed(stored: Sequence[str], given: Sequence[str], place: str) -> None:
    """Raise PluginError if a file names modules that the command line does not name.

    Only the command line imports code. `stored`: modules that the file at `place` names; `given`: those that the
    command line names.
    """
    if missing := [name for name in stored if name not in given]:
        raise PluginError(
            f"{place} was made with plugins={','.join(stored)}, which is code and is not imported because a file says "
            f"so: if you trust it, add plugins={','.join(missing)}"
        )


def portable(names: Sequence[str]) -> tuple[str, ...]:
    """Return `names` with absolute paths of single-file modules, for processes in another directory."""
    return tuple(_portable(name) for name in names)


def plugin_files(name: str) -> list[Path]:
    """Return the source files of a plugin and of the modules that it imports from its folder.

    Modules beside the plugin and one folder below are found, and those that they import in turn.
    Of a package all source files count. Found by reading the source, so that a module imported late counts too.
    """
    spec = None if name.endswith(".py") else importlib.util.find_spec(name)
    own = Path(spec.origin) if spec is not None and spec.origin else expand_user(name)
    if not own.is_file():
        return []
    own = own.resolve()
    root = own.parents[name.count(".") + (own.name == "__init__.py")] if spec is not None else own.parent
    found, pending = dict.fromkeys(_module_files(root, name)) if spec is not None else {}, [own]
    pending += found
    while pending:
        path = pending.pop()
        found[path] = None
        folders = [root, path.parent, *sorted(folder for folder in root.iterdir() if folder.is_dir())]
        names = _imported_names(path) - {"dexgrasp"}  # its version and commit are recorded
        files = (file for module in sorted(names) for folder in folders for file in _module_files(folder, module))
        pending += [file for file in dict.fromkeys(files) if file not in found and file not in pending]
    return sorted(found)


def _module_files(folder: Path, module: str) -> list[Path]:
    """Return the source files of the top-level module or package of `module` in a folder, none where it has none."""
    top = module.partition(".")[0]
    file, package = folder / f"{top}.py", folder / top
    is_package = package.is_dir() and any(package.glob("*.py"))
    return [file] * file.is_file() + (sorted(package.rglob("*.py")) if is_package else [])


def _imported_names(path: Path) -> set[str]:
    """Return the top-level names of the modules that a source file imports, also inside of functions."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()  # the import says what is wrong
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return {name.partition(".")[0] for name in names}


def _import(name: str) -> ModuleType:
    if not name.endswith(".py"):
        if (folder := str(Path.cwd())) not in sys.path:
            sys.path.append(folder)  # last: a file there must not hide an installed package
        return importlib.import_module(name)
    path = expand_user(name).resolve()
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None:
        raise ImportError(f"a module '{path.stem}' is imported already: rename the file")
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _portable(name: str) -> str:
    if name.endswith(".py"):
        return str(expand_user(name).resolve())
    file = getattr(sys.modules.get(name), "__file__", None)
    return file if file and "." not in name and Path(file).name != "__init__.py" else name


def _last_line(error: Exception) -> str:
    """Return the last line of the error's traceback, with file and line of the user's code that raised it."""
    what = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError):
        return f"{what} ({error.filename}:{error.lineno})"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_import_machinery(frame.filename)]
    return f"{what} ({own[-1].filename}:{own[-1].lineno})" if own else what


def _is_import_machinery(file: str) -> bool:
    return file.startswith("<frozen importlib") or file in (__file__, importlib.__file__)
