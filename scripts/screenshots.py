"""Take the pictures of the documentation: a demo, mounted, looked at with what people use."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from mounted.desktop import Desktop, Window, desktop, wait_for  # noqa: E402
from views.browser import browser  # noqa: E402

from satfs.demo.process import DemoProcess  # noqa: E402

IMAGES = ROOT / "docs" / "images"
#: The user `nobody`: Thunar warns root, and should.
USER_ID = 65534 if os.geteuid() == 0 else None
#: File managers have decided what to draw by then, in seconds.
DRAWN_S = 4.0
#: Longest wait for a command in the terminal, in seconds.
COMMAND_S = 120.0
_GROUND = "#16202a"
_LOOKS = (
    *("-fa", "DejaVu Sans Mono", "-fs", "11", "-b", "12", "+sb"),
    *("-bg", _GROUND, "-fg", "#e6e6e6", "-cr", _GROUND),
)


@dataclass(frozen=True)
class Folder:
    """A file manager in a directory of the mount, in which `{scene}` is the first scene's."""

    name: str
    program: str
    directory: str
    size: tuple[int, int] = (820, 470)


@dataclass(frozen=True)
class Terminal:
    """The output of a command, in a terminal of 80 columns.

    *after_s* looks at it while it runs, on a slow line.
    """

    name: str
    command: str
    after_s: float | None = None


@dataclass(frozen=True)
class Gallery:
    """The gallery of a task in a browser, its scene number *chosen* shown on the map."""

    name: str
    task: str
    chosen: int


@dataclass(frozen=True)
class Drawing:
    """The QGIS project of a task, drawn without a window."""

    name: str
    task: str


Shot: TypeAlias = Folder | Terminal | Gallery | Drawing

SHOTS: tuple[Shot, ...] = (
    Folder("thunar-scene", "thunar", "{scene}"),
    Folder("thunar-rasters", "thunar", "{scene}/contents/rasters"),
    Folder("pcmanfm-scene", "pcmanfm", "{scene}"),
    Terminal("terminal-help", "satfs --help"),
    Terminal("terminal-look", "cd {scene}; ls -lh"),
    Terminal("terminal-ls", "satfs ls ~/aleph/tasks/341271"),
    Terminal("terminal-status", "satfs status ~/aleph"),
    Terminal("terminal-doctor", "satfs doctor ~/aleph"),
    Terminal("terminal-cache", "satfs cache info"),
    Terminal("terminal-prefetch", "satfs prefetch ~/aleph/tasks/341271", after_s=4.0),
    Gallery("views-gallery", "341271", 2),
    Drawing("views-qgis", "341271"),
)


def gallery(view: Path, shot: Gallery, home: Path) -> bytes:
    """Return a PNG of the gallery in *view*."""
    with browser(home) as page:
        page.open(f"file://{view}/index.html", width=1180, height=720)
        page.evaluate(f"document.querySelectorAll('.scene button')[{shot.chosen}].click()")
        page.wait_for("document.querySelector('.placed')")
        page.wait_for("!document.querySelector('.leaflet-zoom-anim')")
        page.wait_for("[...document.querySelectorAll('img.picture')].every((i) => i.complete)")
        return page.picture()


def drawing(view: Path, target: Path) -> None:
    """Draw the QGIS project in *view* into the PNG *target*."""
    probe = ROOT / "tests" / "views" / "qgis_probe.py"
    command = ["/usr/bin/python3", str(probe), str(view / "project.qgz"), str(target)]
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


@dataclass
class Stage:
    """A desktop with a mounted demo in the home of its user."""

    desktop: Desktop
    mountpoint: Path
    demo: DemoProcess
    #: The mount's own environment, for every user of the file manager.
    ours: Desktop

    @property
    def scene(self) -> str:
        """Return the path of a scene with rasters of several kinds."""
        return str(sorted(self.mountpoint.glob("tasks/*/*/*_L1D_SR_MS_*"))[0])

    def take(self, shot: Shot) -> None:
        """Take one picture."""
        if isinstance(shot, Folder):
            self._folder(shot)
        elif isinstance(shot, Terminal):
            self._terminal(shot)
        else:
            raw = self.desktop.home / "shot.png"
            view = self.mountpoint / "views" / "task" / shot.task
            if isinstance(shot, Gallery):
                raw.write_bytes(gallery(view, shot, self.desktop.home))
            else:
                drawing(view, raw)
            keep(raw, shot.name)

    def _folder(self, shot: Folder) -> None:
        directory = Path(shot.directory.format(scene=self.scene))
        with self.desktop.window(shot.program, directory) as window:
            width, height = shot.size
            identity = next(iter(window.titles()))
            self.desktop.run("xdotool", "windowsize", identity, str(width), str(height))
            time.sleep(DRAWN_S)
            self._picture(identity, shot.name)

    def _terminal(self, shot: Terminal) -> None:
        command = shot.command.format(scene=shlex.quote(self.scene))
        shown = command.replace(str(self.desktop.home), "~")
        prompt = f"tput civis; printf '\\033[1;32m$\\033[0m %s\\n' {shlex.quote(shown)}"
        done = self.desktop.home / "done"
        done.unlink(missing_ok=True)
        if shot.after_s is not None:
            self.demo.call("set_line", side="store", bytes_per_s=400_000)
        xterm = ["xterm", "-geometry", "80x60", *_LOOKS, "-e", "bash", "-c"]
        with self.ours.running(*xterm, f"{prompt}; {command}; touch ~/done; sleep 600"):
            window = Window(self.ours, "xterm")
            wait_for(window.titles, "a terminal")
            if shot.after_s is None:
                wait_for(done.exists, command, COMMAND_S)
            time.sleep(shot.after_s or 0.5)
            edges = ["-bordercolor", _GROUND, "-border", "1", "-trim", "-border", "12"]
            self._picture(next(iter(window.titles())), shot.name, *edges)

    def _picture(self, window: str, name: str, *changes: str) -> None:
        raw = self.desktop.home / "shot.png"
        self.desktop.run("import", "-window", window, raw)
        keep(raw, name, *changes)


def keep(raw: Path, name: str, *changes: str) -> None:
    """Put a picture into the documentation, after *changes* (options of ImageMagick)."""
    target = IMAGES / f"{name}.png"
    # 128 colours: a tenth of the bytes, without a visible difference in a window.
    reduced = ["+dither", "-colors", "128", "-strip", f"png8:{target}"]
    subprocess.run(["convert", str(raw), *changes, *reduced], check=True)
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size // 1000} KB")


@contextmanager
def home_of_you() -> Iterator[Path]:
    """Make a user's home, where another user than root has access."""
    home = Path("/home/you")
    if USER_ID is not None and not home.exists():
        home.mkdir()
        try:
            yield home
        finally:
            shutil.rmtree(home)
    else:
        with tempfile.TemporaryDirectory() as parent:
            Path(parent).chmod(0o755)
            home = Path(parent) / "you"
            home.mkdir()
            yield home


@contextmanager
def staged() -> Iterator[Stage]:
    """Start a demo, a desktop, and a mount in the home of its user."""
    with ExitStack() as stack:
        home = stack.enter_context(home_of_you())
        demo = stack.enter_context(DemoProcess())
        screen = stack.enter_context(desktop(home, size="1100x1300", user_id=USER_ID))
        screen.environment |= demo.environment | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SATFS_CACHE_DIR": str(home / ".cache" / "satfs"),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
        }
        # Nothing of other mounts is to be seen.
        places = {"XDG_RUNTIME_DIR": home / ".ours" / "run", "TMPDIR": home / ".ours" / "tmp"}
        for place in places.values():
            place.mkdir(mode=0o700, parents=True)
        surroundings = screen.environment | {name: str(path) for name, path in places.items()}
        ours = Desktop(home, surroundings)
        mountpoint = home / "aleph"
        mountpoint.mkdir()
        options = ["-o", "allow_other"] if USER_ID is not None else []
        ours.run("satfs", "mount", *options, mountpoint)
        try:
            yield Stage(screen, mountpoint, demo, ours)
        finally:
            ours.run("satfs", "umount", mountpoint)


def main(names: list[str]) -> int:
    """Take the pictures called *names*, or all; return 0 when all came about."""
    unknown = set(names) - {shot.name for shot in SHOTS}
    if unknown:
        print(f"no such pictures: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    IMAGES.mkdir(exist_ok=True)
    n_failed = 0
    with staged() as stage:
        for shot in SHOTS:
            if names and shot.name not in names:
                continue
            try:
                stage.take(shot)
            except (AssertionError, subprocess.CalledProcessError) as failure:
                print(f"{shot.name}: {failure}", file=sys.stderr)
                n_failed += 1
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
