"""The parts of endurance.py, each a file; the journal and what is known of a run are the GitHub demo's."""

import sys
from pathlib import Path

# It is no package of this one; in the tests it is on the path already.
sys.path.append(str(Path(__file__).resolve().parents[2] / "examples" / "github_bot"))
