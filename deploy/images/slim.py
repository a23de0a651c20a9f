"""Takes out of a virtual environment what no command ever reads; run by the Dockerfiles.

    python slim.py

Works on the environment of the interpreter that runs it: pip, tests, C++ headers and bytecode
go. Then everything is imported that commands import, which shows that nothing needed is gone
and leaves the bytecode of exactly those modules: a read-only container cannot write it later.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import sysconfig
from pathlib import Path

SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
REMOVED = (
    "**/__pycache__", "**/tests", "**/*.pyi", "torch/test", "torch/include", "torch/share",
    "torch/bin/*", "torch/lib/*test.so", "torch/lib/*.a", "pip", "pip-*", "setuptools",
    "setuptools-*", "_distutils_hack", "distutils-*.pth", "pkg_resources",
)  # fmt: skip
KEPT = {"torch_shm_manager"}  # torch does not import without
IMPORTED = (
    "google.rpc.error_details_pb2", "grpc.aio", "grpc_status.rpc_status",
    "gymnasium.vector", "gymnasium.wrappers", "gymnasium.envs.classic_control.cartpole",
    "rich.live", "rich.progress", "rich.table", "safetensors.numpy", "safetensors.torch",
    "tenacity", "tensorboardX", "tomli_w", "torch.nn.functional", "torch.optim", "torch._dynamo",
    "torch.profiler", "tyro", "xxhash", "zstandard",
)  # fmt: skip
OPTIONAL = (
    "ale_py.vector_env", "minatar.environments.breakout", "grpc_health.v1.health_pb2_grpc",
    "grpc_reflection.v1alpha.reflection", "grpc_channelz.v1.channelz", "prometheus_client",
    "cryptography.x509",
)  # fmt: skip


def main() -> None:
    """Removes, imports, and says what that saved."""
    before = _size()
    for pattern in REMOVED:
        for path in sorted(SITE_PACKAGES.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in KEPT:
                path.unlink(missing_ok=True)
    for name in ("pip", "pip3", f"pip3.{sys.version_info.minor}"):
        (Path(sys.prefix) / "bin" / name).unlink(missing_ok=True)
    for name in IMPORTED:
        importlib.import_module(name)
    for name in OPTIONAL:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            print(f"not in this image: {name} ({error})")
    print(f"packages: {before} MB before, {_size()} MB now")


def _size() -> int:
    files = (path for path in SITE_PACKAGES.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files) // 1_000_000


if __name__ == "__main__":
    main()
