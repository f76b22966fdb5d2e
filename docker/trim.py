"""Remove the files that no worker opens from an image's site-packages, and print their size.

python docker/trim.py SITE_PACKAGES [--unproven]

By default it removes files that are never loaded when a model scores: tests, headers, build tools,
clients of unused services. `tests/compose` scores with the rest. `--unproven` also removes parts of
CUDA that the engine should not need; no run on a GPU has proved that, so that it is off.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

# matplotlib imports the names of glyphs alone, to draw SVG.
FONT_TOOLS = (
    *("ttLib", "otlLib", "varLib", "feaLib", "mtiLib", "voltLib", "ufoLib", "designspaceLib"),
    *("subset", "cu2qu", "qu2cu", "merge", "svgLib", "colorLib", "cffLib", "pens", "t1Lib"),
)
UNUSED = (
    "torch/test",
    "torch/include",
    "torch/share",
    "torch/bin/test_*",
    "torch/bin/protoc*",
    "torch/bin/*_benchmark",
    "torch/lib/libtorchbind_test.so",
    "torch/lib/libjitbackend_test.so",
    "torch/lib/libbackend_with_compiler.so",
    "torch/lib/libaoti_custom_ops.so",
    "torch/lib/*.a",
    "caffe2",
    "**/*.pyi",
    "setuptools",  # builds extensions
    "pkg_resources",
    "_distutils_hack",
    "distutils-precedence.pth",
    "transformers/models/*/modular_*.py",  # what their modeling_*.py are generated from
    "transformers/models/*/image_processing_*.py",
    "transformers/models/*/video_processing_*.py",
    "transformers/models/*/feature_extraction_*.py",
    "transformers/models/*/processing_*.py",
    "pyarrow/tests",
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/*.p[xy][xdi]",
    "pyarrow/_s3fs*",  # S3 is read and written through boto3
    "pyarrow/libarrow_s3*",
    "pyarrow/_flight*",
    "pyarrow/libarrow_flight*",
    "pyarrow/libarrow_python_flight*",
    "numpy/**/tests",
    "numpy/f2py",
    "mpmath/tests",
    "numpy/_core/include",
    "numpy/_core/lib/*.a",
    "numpy/random/lib/*.a",
    "sympy/**/tests",
    "pygments/lexers/[!_p]*",  # tracebacks are Python's
    "networkx/**/tests",
    "matplotlib/tests",
    "matplotlib/mpl-data/sample_data",
    "mpl_toolkits/**/tests",
    "scipy",  # pytrec_eval asks for it and imports nothing of it
    "scipy.libs",
    *(f"fontTools/{name}" for name in FONT_TOOLS),
    "PIL/_avif*",
    "PIL/_webp*",
    "PIL/_imagingft*",
    "PIL/_imagingcms*",
    "pillow.libs/libavif*",
    "pillow.libs/libwebp*",
    "pillow.libs/libharfbuzz*",
    "pillow.libs/libfreetype*",
    "pillow.libs/liblcms2*",
    "hf_xet",  # the hub is asked over plain HTTP, which can go on after a cut
    "nvidia/**/include",
)
# S3, and the services that boto3 may get credentials from.
AWS_SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}

# Used only by torch.compile, which on a CPU makes C++; the image has no compiler.
NOT_ON_CPU = (
    *(f"torch/_inductor/{name}" for name in ("codegen", "kernel", "fx_passes")),
    *("sympy/physics", "sympy/diffgeom"),
)

UNPROVEN = (
    "triton",  # torch.compile's; the engine compiles nothing
    "nvidia/**/libcusolverMg*",
    "nvidia/**/libcusolver*",
    "nvidia/**/libnvrtc*alt*",
    "nvidia/**/libnvperf*",
    "nvidia/**/libcudnn_engines_*",
)

# Some are left out: `strip` breaks libraries that were rewritten for their wheel, such as NumPy's.
STRIPPED = (
    *("torch/lib/*.so*", "torch/*.so", "pyarrow/*.so*", "_duckdb*.so"),
    *("kiwisolver/*.so", "contourpy/*.so", "matplotlib/*.so"),
    *("tokenizers/*.so", "safetensors/*.so", "regex/*.so", "yaml/*.so"),
)


def main() -> None:
    """Trim the folder of the command line."""
    packages = Path(sys.argv[1])
    before = size(packages)
    has_cuda, unproven = (packages / "nvidia").exists(), "--unproven" in sys.argv
    for pattern in (*UNUSED, *(() if has_cuda else NOT_ON_CPU), *(UNPROVEN if unproven else ())):
        for path in packages.glob(pattern):
            if "auto" not in path.parts:  # transformers' own registry, which is loaded
                remove(path)
    for service in (packages / "botocore" / "data").glob("*/"):
        if service.name not in AWS_SERVICES:
            remove(service)
    for library in sorted(packages.glob("pyarrow/*.so.*")):
        link_copies(library)
    # No run on a GPU has proved that CUDA's torch can be stripped, either.
    if unproven or not has_cuda:
        strip(packages)
    print(f"trimmed: {before >> 20} MiB -> {size(packages) >> 20} MiB")


def remove(path: Path) -> None:
    """Remove a file, a link or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_copies(library: Path) -> None:
    """Replace copies of a library by links.

    A wheel holds no links, so that libx.so, a link to libx.so.1.2 elsewhere, is a copy there.
    """
    stem = re.sub(r"\.so\..*", ".so", library.name)
    shorter = [
        path for path in library.parent.glob(f"{stem}*") if len(path.name) < len(library.name)
    ]
    for path in shorter:
        if not path.is_symlink() and path.read_bytes() == library.read_bytes():
            path.unlink()
            path.symlink_to(library.name)


def strip(packages: Path) -> None:
    """Remove symbols that only a debugger reads; those that other libraries link to stay."""
    for library in (path for pattern in STRIPPED for path in packages.glob(pattern)):
        if not library.is_symlink() and is_elf(library):
            subprocess.run(["strip", "--strip-unneeded", library], check=True)


def is_elf(path: Path) -> bool:
    """Return whether a file is an ELF binary."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
