from .export import ExportCfg as ExportCfg
from .export import export as export
