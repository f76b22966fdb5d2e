"""Print what fills the images: each part's size and purpose, as the table of docs/deployment.md.

python docker/contents.py

Needs a Docker Engine and images that `make test-compose` built.
"""

from __future__ import annotations

import json
import re
import subprocess

IMAGES = ("control", "worker-cpu")
SITE = r"opt/venv/lib/python3[.\d]*/site-packages/"
CHARTS = "matplotlib|mpl_|pylab|PIL|pillow|font[Tt]ools|contourpy|kiwisolver"
# The first pattern that fits the beginning of a file's path decides.
PARTS = (
    ("torch's kernels", f"{SITE}torch/lib/", "scoring; one library, 345 MB of it"),
    ("torch's Python", f"{SITE}(torch|functorch)", "scoring"),
    ("sympy", f"{SITE}(sympy|mpmath|isympy)", "models without a packed forward: torch's shapes"),
    ("transformers", f"{SITE}transformers", "those models, configurations, tokenizers"),
    ("tokenizers", f"{SITE}(tokenizers|regex|safetensors)", "texts to tokens; files of weights"),
    ("Arrow", f"{SITE}pyarrow", "Parquet, tables of rows"),
    ("OpenBLAS", f"{SITE}numpy.libs/", "NumPy's wheel, which does not load without it"),
    ("NumPy", f"{SITE}numpy", "arrays"),
    ("DuckDB", f"{SITE}(_duckdb|duckdb|adbc)", "preparing what is not grouped pairs, out of core"),
    ("matplotlib", f"{SITE}({CHARTS})", "charts of the report page"),
    ("Flower", f"{SITE}(flower|tornado|pytz|humanize)", "the dashboard"),
    ("other packages", "opt/venv/", "Celery, Redis, S3, pydantic, the command line"),
    ("bytecode", "opt/bytecode/", "quick starts: the modules that a start imports"),
    ("Rankmill", "app/", "the code, the demo's model and data"),
    ("Debian and Python", "", "the rest of the base image"),
)
# Runs inside an image; other file systems are mounted there.
LIST = """
import json, os
top, found = os.stat("/").st_dev, {}
for folder, folders, names in os.walk("/"):
    folders[:] = [each for each in folders if os.lstat(f"{folder}/{each}").st_dev == top]
    for name in names:
        info = os.lstat(f"{folder}/{name}")
        found[info.st_ino] = (f"{folder}/{name}".lstrip("/"), info.st_size)
print(json.dumps(list(found.values())))
"""


def main() -> None:
    """Print the table."""
    sizes = {image: parts_mb(image) for image in IMAGES}
    print(f"| part, MB | {' | '.join(IMAGES)} | for |\n| --- | {'---: | ' * len(IMAGES)}--- |")
    for name, _, purpose in PARTS:
        cells = [f"{sizes[image][name]:.1f}" if sizes[image][name] else "" for image in IMAGES]
        print(f"| {name} | {' | '.join(cells)} | {purpose} |")
    totals = [f"{sum(sizes[image].values()):.0f}" for image in IMAGES]
    print(f"| all | {' | '.join(totals)} | |")


def parts_mb(image: str) -> dict[str, float]:
    """Return the size of each part of an image."""
    run = ["docker", "run", "--rm", "--entrypoint", "python", f"rankmill/{image}:test", "-c", LIST]
    done = subprocess.run(run, check=True, capture_output=True, text=True)
    mb = {name: 0.0 for name, _, _ in PARTS}
    for path, size in json.loads(done.stdout):
        mb[part_of(path)] += size / 1e6
    return mb


def part_of(path: str) -> str:
    """Return the part that a file belongs to."""
    return next(name for name, pattern, _ in PARTS if re.match(pattern, path))


if __name__ == "__main__":
    main()
