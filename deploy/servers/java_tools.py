"""Build the two Java programs of this folder once: jars by Maven, then javac and jar.

No Maven plugin compiles anything, so Maven is asked for one thing only, the list of jars.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import ServerError
from deploy.servers.prerequisites import java, maven, require
from deploy.servers.processes import cache_folder

SOURCES = Path(__file__).parent / "java"
BUILD_TIMEOUT = 1200.0
QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Options that start a JVM in half the time, for programs that live for minutes."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class JavaTools:
    """The built programs.

    Attributes
    ----------
    library
        Folder of the downloaded jars; named after the digest of the list of jars.
    folder
        Holds the project's own jar and class-data archives; named after the digest of the sources.
    """

    library: Path
    folder: Path

    @property
    def jar(self) -> Path:
        """The project's own jar; a folder of classes would rule out a class-data archive."""
        return self.folder / "nightingale-test-servers.jar"

    @property
    def classpath(self) -> str:
        """Class path of the own jar and all downloaded ones."""
        return f"{self.jar}:{self.library}/*"

    def archive(self, name: str) -> Path:
        """Return where a program's class-data archive is or will be."""
        return self.folder / f"{name}.jsa"


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def build_java_tools(*, say: Say | None = None) -> JavaTools:
    """Return the built programs; the first call downloads about 290 MB of jars.

    Parameters
    ----------
    say
        Told what is going on before anything slow.

    Raises
    ------
    PrerequisiteError
        If a JDK or Maven is missing.
    ServerError
        If Maven or javac fails, with the end of its output.
    """
    require(java())
    base = cache_folder() / "java"
    jars = base / f"jars-{_digest(SOURCES / 'pom.xml')}"
    own = base / f"programs-{_digest(*SOURCES.iterdir())}"
    tools = JavaTools(library=jars / "lib", folder=own)
    _once(jars, lambda: _download(tools, say))
    _once(own, lambda: _compile(tools))
    return tools


def _once(folder: Path, build: Callable[[], None]) -> None:
    """Build a folder unless it is built; two programs that start at once build it once."""
    done = folder / "built"
    if done.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.is_file():
            build()
            done.touch()


def _download(tools: JavaTools, say: Say | None) -> None:
    require(maven())
    if say:
        say("downloading HAPI FHIR's jars (once, about 290 MB)")
    _run(
        "mvn", "-q", "-B", "-f", str(SOURCES / "pom.xml"), "dependency:copy-dependencies",
        f"-DoutputDirectory={tools.library}", "-DincludeScope=runtime",
    )  # fmt: skip


def _compile(tools: JavaTools) -> None:
    classes = tools.folder / "classes"
    classes.mkdir(exist_ok=True)
    programs = [str(path) for path in sorted(SOURCES.glob("*.java"))]
    _run("javac", "-nowarn", "-d", str(classes), "-cp", f"{tools.library}/*", *programs)
    shutil.copy(SOURCES / "logback.xml", classes)
    _run("jar", "cf", str(tools.jar), "-C", str(classes), ".")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise ServerError(f"{command[0]} did not end in {BUILD_TIMEOUT:.0f} s") from None
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ServerError(f"{command[0]} failed with status {done.returncode}:\n{tail}")
