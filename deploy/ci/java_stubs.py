"""Compile the contract for Java, as a laboratory system would, and record it.

    python -m deploy.ci.java_stubs

Generates messages and stubs from all protos with Debian's protoc and gRPC plugin, compiles them with javac, and writes
``protos/java-stubs.txt``: what was compiled, with what, and when. A test holds the record against the protos, so that a change of the
contract is compiled for Java before it lands. Needs the Debian packages in ``PACKAGES`` and a JDK.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PROTOS: Final = ROOT / "protos"
RECORD: Final = PROTOS / "java-stubs.txt"
GOOGLEAPIS: Final = ROOT / "build" / "googleapis"
PACKAGES: Final = (
    "default-jdk-headless",
    "libgeronimo-annotation-1.3-spec-java",
    "libgrpc-java",
    "libprotobuf-java",
    "protobuf-compiler",
    "protobuf-compiler-grpc-java-plugin",
)
_PROGRAMS: Final = ("protoc", "grpc_java_plugin", "javac")
_JARS: Final = ("grpc-api", "grpc-stub", "grpc-protobuf", "grpc-core", "protobuf", "guava", "geronimo-annotation-1.3-spec")
_JAR_FOLDER: Final = Path("/usr/share/java")


def protos() -> list[Path]:
    """All protos of the project, sorted."""
    return sorted(PROTOS.rglob("*.proto"))


def digest() -> str:
    """SHA-256 over the names and contents of all protos."""
    found = hashlib.sha256()
    for path in protos():
        found.update(path.relative_to(PROTOS).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def recorded_digest() -> str:
    """The digest that the record was written for."""
    return RECORD.read_text(encoding="utf-8").splitlines()[0].rpartition(" ")[2]


def compile_stubs(into: Path) -> tuple[int, int]:
    """Generate and compile.

    Args:
        into: empty folder for sources and classes.

    Returns:
        Generated Java files and compiled classes.

    Raises:
        subprocess.CalledProcessError: the contract does not compile.
    """
    sources, classes = into / "sources", into / "classes"
    sources.mkdir()
    classes.mkdir()
    plugin = shutil.which("grpc_java_plugin")
    well_known = files("grpc_tools") / "_proto"
    given = [*map(str, protos()), str(GOOGLEAPIS / "google" / "rpc" / "status.proto")]
    includes = [f"-I{folder}" for folder in (PROTOS, GOOGLEAPIS, well_known)]
    generators = [f"--java_out={sources}", f"--grpc-java_out={sources}", f"--plugin=protoc-gen-grpc-java={plugin}"]
    subprocess.run(["protoc", *includes, *generators, *given], check=True)
    generated = sorted(map(str, sources.rglob("*.java")))
    classpath = ":".join(str(_JAR_FOLDER / f"{jar}.jar") for jar in _JARS)
    subprocess.run(["javac", "-nowarn", "-cp", classpath, "-d", str(classes), *generated], check=True)
    return len(generated), len(list(classes.rglob("*.class")))


def main() -> None:
    """Compile and record."""
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        sys.exit(f"{', '.join(missing)} missing: apt-get install {' '.join(PACKAGES)}")
    with tempfile.TemporaryDirectory() as folder:
        generated, compiled = compile_stubs(Path(folder))
    tools = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for command in (["protoc", "--version"], ["javac", "--version"])
    ]
    grpc = (_JAR_FOLDER / "grpc-api.jar").resolve().stem
    lines = [
        f"protos SHA-256 {digest()}",
        f"{len(protos())} protos, {generated} Java files, {compiled} classes",
        f"{', '.join(tools)}, {grpc}",
        f"{datetime.now(UTC):%Y-%m-%d}, make java-stubs",
    ]
    RECORD.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write(RECORD.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
