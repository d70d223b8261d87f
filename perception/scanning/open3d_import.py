"""The import of open3d, an optional extra."""

from types import ModuleType

from dexgrasp.utils.text import install_command


def open3d() -> ModuleType:
    """Return open3d. Raises ImportError with the package to install."""
    try:
        import open3d as module
    except ImportError as error:
        raise ImportError(f"scanning needs open3d: {install_command('scan')} ({error})") from error
    module.utility.set_verbosity_level(module.utility.VerbosityLevel.Error)
    return module
