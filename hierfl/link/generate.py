"""Writes Python for the messages of links: `python -m hierfl.link.generate` (needs grpcio-tools, of the extra dev)."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

__all__ = ["generated"]

FOLDER = Path(__file__).with_name("_wire")
WRITTEN = ("link_pb2.py", "link_pb2.pyi")


def generated() -> dict[str, str]:
    """Give the files that belong to link.proto as it is. Errors: RuntimeError if it cannot be compiled."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as out:
        words = ["protoc", f"-I{FOLDER}", f"--python_out={out}", f"--pyi_out={out}", str(FOLDER / "link.proto")]
        if protoc.main(words) != 0:
            raise RuntimeError(f"{FOLDER / 'link.proto'} cannot be compiled")
        return {name: _for_any_runtime((Path(out) / name).read_text(encoding="utf-8")) for name in WRITTEN}


def _for_any_runtime(text: str) -> str:
    """Leave out the words that bind the file to one version of protobuf: it uses what all since 4 have."""
    text = re.sub(r"^_runtime_version\.ValidateProtobufRuntimeVersion\(.*?^\)\n", "", text, flags=re.M | re.S)
    bound = ("runtime_version", "Protobuf Python Version")
    kept = [line for line in text.splitlines() if not any(word in line for word in bound)]
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    for name, text in generated().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {FOLDER / name}\n")
