"""Print the packages of an image: the project's dependencies and those of the named extras.

python docker/requirements.py EXTRA …

They are installed before the code is copied, so that a change of the code keeps their layer.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = [*project["dependencies"]]
for extra in sys.argv[1:]:
    wanted += project["optional-dependencies"][extra]
print(*wanted, sep="\n")
