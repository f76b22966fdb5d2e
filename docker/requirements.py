"""Print what an image installs: the project's dependencies and those of the extras that are named.

python docker/requirements.py EXTRA …

Apart from the code, so that the layer with the packages stays when only the code has changed.
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
