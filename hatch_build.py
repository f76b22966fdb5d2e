"""Build the package: compile the kernels where there is a C compiler, and add the demo model."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = Path("worker", "engine", "compiled")
_DEMO = "models/demo-reranker"


class CompileKernels(BuildHookInterface):
    """Puts the library next to its sources; without it the engine takes torch's own kernels."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the library and the demo model to the wheel."""
        if version != "editable" and Path(self.root, _DEMO).is_dir():
            build_data["force_include"][str(Path(self.root, _DEMO))] = f"rankmill/{_DEMO}"
        build = runpy.run_path(str(Path(self.root) / _FOLDER / "build.py"))["build"]
        try:
            built = build()
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"the kernels are not compiled: {error}")
            return
        if built is None:
            self.app.display_warning("the kernels are not compiled: there is no C compiler")
            return
        build_data["artifacts"].append(f"/{_FOLDER.as_posix()}/kernels-*.so")
        build_data["pure_python"] = False
        build_data["infer_tag"] = version != "editable"
