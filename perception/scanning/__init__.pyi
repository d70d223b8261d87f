from .frames import ScanError as ScanError
from .scan import ScannedMesh as ScannedMesh
from .scan import scan_pass as scan_pass
