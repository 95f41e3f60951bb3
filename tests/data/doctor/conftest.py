"""Tests of the doctor share ``planting``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
