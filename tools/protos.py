"""Generates the Python stubs of `protos/` into a folder (default: this repository's root).

Every file gets its messages and their types; only `*_service.proto` get gRPC stubs, because a file
without services would leave an empty module behind. The versions of the generators are pinned in
`pyproject.toml`, so that the same protos give the same bytes everywhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def generate(out: Path) -> None:
    """Write all stubs below `out`, as `controlplane/v1/…`; raise SystemExit when protoc refuses."""
    # The generators for types are programs beside this interpreter; protoc looks for them on PATH.
    plugins = [
        f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}"
        for name in ("mypy", "mypy_grpc")
    ]
    protos = ROOT / "protos"
    includes = [f"-I{protos}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    files = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    services = [name for name in files if name.endswith("_service.proto")]
    runs = (
        (files, f"--python_out={out}", f"--mypy_out=quiet:{out}"),
        (services, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"),
    )
    for names, *outputs in runs:
        code = protoc.main(["protoc", *includes, *plugins, *outputs, *names])
        if code:
            raise SystemExit(f"protoc refused {protos} with exit code {code}; its words are above.")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
