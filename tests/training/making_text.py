"""The modules of examples/training_text, a folder of scripts that import each other by name."""

import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples" / "training_text"
sys.path.append(str(FOLDER))  # for the processes that a script starts, too

blocks, evaluation, make = map(importlib.import_module, ("blocks", "evaluation", "make"))
