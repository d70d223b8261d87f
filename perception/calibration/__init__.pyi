from .charuco import BoardDetection as BoardDetection
from .hand_eye import calibrate as calibrate
