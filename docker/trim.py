"""Remove the files that no container opens from an image's site-packages, and print their size.

python docker/trim.py SITE_PACKAGES [none|safe|small]

It removes files that are never loaded when a model scores: tests, headers, build tools, clients of
unused services. `tests/compose` scores with the rest. The level is that of CUDA's parts, where the
folder has them; docker/cuda_cuts.py lists them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import cuda_cuts

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
    "torch/bin/*Test",
    "torch/bin/protoc*",
    "torch/bin/*_benchmark",
    "torch/lib/libtorchbind_test.so",
    "torch/lib/libjitbackend_test.so",
    "torch/lib/libbackend_with_compiler.so",
    "torch/lib/libaoti_custom_ops.so",
    "torch/lib/*.a",
    "caffe2",
    "**/*.pyi",
    "fontTools/**/*.c",
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
    "pyarrow/include*",
    "pyarrow/src",
    "pyarrow/*.p[xy][xdi]",
    "pyarrow/_s3fs*",  # S3 is read and written through boto3
    "pyarrow/libarrow_s3*",
    "pyarrow/_gcsfs*",
    "pyarrow/_azurefs*",
    "pyarrow/_flight*",
    "pyarrow/libarrow_flight*",
    "pyarrow/libarrow_python_flight*",
    "pyarrow/_substrait*",  # plans of other engines; trim_unused_links removes the library
    "pyarrow/_pyarrow_cpp_tests*",
    "numpy/**/tests",
    "numpy/distutils",
    "numpy/f2py",
    "numpy/_core/*_tests.*.so",
    "numpy/_core/_simd.*.so",  # for NumPy's own tests
    "mpmath/tests",
    "numpy/_core/include",
    "numpy/_core/lib/*.a",
    "numpy/random/lib/*.a",
    "sympy/**/tests",
    "sympy/**/benchmarks",
    "regex/tests",
    "pygments/lexers/[!_p]*",  # tracebacks are Python's
    "networkx/**/tests",
    "matplotlib/tests",
    "matplotlib/mpl-data/sample_data",
    "matplotlib/mpl-data/fonts/afm",  # of PostScript and PDF; charts are SVG
    "matplotlib/mpl-data/fonts/pdfcorefonts",
    "matplotlib/mpl-data/fonts/ttf/[!DL]*",
    "matplotlib/mpl-data/fonts/ttf/DejaVu[!S]*",
    "matplotlib/mpl-data/fonts/ttf/DejaVuSans[!.]*",
    "matplotlib/backends/_tkagg*",
    "mpl_toolkits/**/tests",
    "scipy",  # pytrec_eval asks for it and imports nothing of it
    "scipy.libs",
    *(f"fontTools/{name}" for name in FONT_TOOLS),
    "PIL/_avif*",
    "PIL/_webp*",
    "PIL/_imagingft*",
    "PIL/_imagingcms*",
    "PIL/_imagingtk*",
    "pillow.libs/libavif*",
    "pillow.libs/libwebp*",
    "pillow.libs/libharfbuzz*",
    "pillow.libs/libfreetype*",
    "pillow.libs/liblcms2*",
    "hf_xet",  # the hub is asked over plain HTTP, which can go on after a cut
    "huggingface_hub/cli",
    "huggingface_hub/inference",
    "nvidia/**/include",
)
# S3, and the services that boto3 may get credentials from.
AWS_SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}

# The compiler, on a CPU without one that makes C++, and what several machines train with. The
# engine imports neither (worker/engine/lean_loading.py); a model's own code that does is refused.
NOT_ON_CPU = (
    "torch/_inductor/[!_]*",
    "torch/_inductor/_[!_]*",
    "torch/_dynamo/[!_]*",
    "torch/_vendor/quack",
    *(f"torch/distributed/{name}" for name in ("tensor", "fsdp", "checkpoint", "elastic")),
    *(f"torch/distributed/{name}" for name in ("pipelining", "optim", "_shard", "_tools")),
    *("torch/distributed/_symmetric_memory", "torch/distributed/_local_tensor"),
    *("torch/onnx", "torch/utils/benchmark", "torch/utils/hipify", "torch/utils/tensorboard"),
    *(f"torch/testing/_internal/{name}" for name in ("distributed", "generated", "opinfo")),
    "torch/testing/_internal/common_[!d]*",
    *("torchgen/packaged", "transformers/exporters", "transformers/cli"),
    "networkx",
    *(f"sympy/{name}" for name in ("physics", "diffgeom", "stats", "crypto", "categories")),
    *("sympy/parsing/autolev", "sympy/parsing/latex", "sympy/utilities/mathml/data"),
)

STRIPPED = (
    *("torch/lib/*.so*", "torch/*.so", "pyarrow/*.so*", "_duckdb*.so", "fontTools/misc/*.so"),
    *("kiwisolver/*.so", "contourpy/*.so", "matplotlib/*.so", "PIL/*.so", "pytrec_eval_ext*.so"),
    *(
        "triton/_C/*.so",
        "cuda/bindings/**/*.so",
        "tokenizers/*.so",
        "safetensors/*.so",
        "regex/*.so",
        "yaml/*.so",
        "wcwidth/*.so",
    ),
)

# The tasks of transformers whose models take texts.
TASKS_OF_TEXT = ("SEQUENCE_CLASSIFICATION", "CAUSAL_LM", "MASKED_LM", "TEXT_ENCODING")


def main() -> None:
    """Trim the folder of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("packages", type=Path)
    parser.add_argument("level", nargs="?", choices=get_args(cuda_cuts.Level), default="small")
    packages, level = vars(parser.parse_args()).values()
    before = size(packages)
    has_cuda = (packages / "nvidia").exists()
    late = cuda_cuts.apply(packages, level) if has_cuda else NOT_ON_CPU
    for path in list(models_without_text(packages / "transformers" / "models")):
        refuse(path, f"transformers' {path.parent.name} is not in this image of models of texts")
    for pattern in (*UNUSED, *late):
        for path in packages.glob(pattern):
            if "auto" not in path.parts:  # transformers' own registry, which is loaded
                remove(path)
    for name in () if has_cuda else ("_dynamo", "_inductor"):
        refuse(packages / "torch" / name / "__init__.py", "torch's compiler is not in this image")
    for service in (packages / "botocore" / "data").glob("*/"):
        if service.name not in AWS_SERVICES:
            remove(service)
    for library in sorted(packages.glob("pyarrow/*.so.*")):
        link_copies(library)
    if level != "none" or not has_cuda:
        strip(packages)
    unlink_substrait(packages / "pyarrow")
    print(f"trimmed: {before >> 20} MiB -> {size(packages) >> 20} MiB")


def models_without_text(models: Path) -> Iterator[Path]:
    """Yield the code of transformers' models of images, sound and series; their configs stay.

    Those are models that no task of text names, but for those with a tokenizer and nothing else.
    """
    registry = models / "auto" / "modeling_auto.py"
    text = registry.read_text() if registry.exists() else ""
    tasks = "|".join(TASKS_OF_TEXT)
    mappings = re.findall(rf"^MODEL_FOR_(?:{tasks})_MAPPING_NAMES = .*?^\)", text, re.M | re.S)
    named = {name for mapping in mappings for name in re.findall(r'"(\w+)"', mapping)}
    for folder in (each for each in models.glob("*/") if each.name != "auto"):
        code = list(folder.glob("modeling_*.py"))
        text = "".join(path.read_text() for path in code)
        classes = set(re.findall(r"^class (\w+)", text, re.M))
        senses = [*folder.glob("*processing_*.py"), *folder.glob("feature_extraction_*.py")]
        is_text = any(folder.glob("tokenization_*.py")) and not senses
        if not named & classes and not is_text:
            yield from code


def refuse(module: Path, reason: str) -> None:
    """Replace a module by one that says why it is gone, if it exists."""
    if module.exists():
        module.write_text(f"raise ImportError({reason!r})\n")


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


def unlink_substrait(folder: Path) -> None:
    """Remove Arrow's library for plans of other engines; others name it and use none of it."""
    for name in sorted(path.name for path in folder.glob("libarrow_substrait.so*")):
        for library in folder.glob("*.so*"):
            if not library.is_symlink() and is_elf(library):
                subprocess.run(["patchelf", "--remove-needed", name, library], check=True)
        remove(folder / name)


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
