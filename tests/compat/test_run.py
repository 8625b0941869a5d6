"""Programs written for Ray, run as they are: by ``zray run`` and ``python -m zray.compat``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "written_for_ray"
MODULE = [sys.executable, "-m", "zray.compat"]
COMMAND = [sys.executable, "-m", "zray", "run"]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command line in ``tmp_path`` to its end; its exit code is 0 or ``code``."""

    def run(*command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=50, env=os.environ
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


@pytest.mark.parametrize("how", [MODULE, COMMAND], ids=["module", "command"])
def test_a_script_is_what_python_would_make_of_it(run: Run, tmp_path: Path, how: list[str]) -> None:
    script = write(
        tmp_path / "sub" / "script.py",
        """
        import sys, beside
        print(__name__, __file__, __spec__, sys.argv, sys.modules["__main__"].__file__ == __file__)
        print(sys.path[0], beside.value)
        sys.exit(7)
        """,
    )
    write(tmp_path / "sub" / "beside.py", "value = 3\n")

    said = run(*how, "sub/script.py", "-m", "--x=1", "--help", code=7).stdout.splitlines()

    arguments = ["sub/script.py", "-m", "--x=1", "--help"]
    assert said == [f"__main__ {script} None {arguments} True", f"{script.parent} 3"]


def test_a_module_is_what_python_would_make_of_it(run: Run, tmp_path: Path) -> None:
    module = write(
        tmp_path / "package" / "module.py",
        """
        import sys
        from . import other
        print(__name__, __package__, __spec__.name, sys.argv, other.value)
        """,
    )
    write(tmp_path / "package" / "__init__.py", "")
    write(tmp_path / "package" / "other.py", "value = 4\n")

    said = run(*COMMAND, "-m", "package.module", "a").stdout

    assert said == f"__main__ package package.module {[str(module), 'a']} 4\n"


def test_ray_is_zray_in_the_program_its_workers_and_what_they_import(
    run: Run, tmp_path: Path
) -> None:
    write(
        tmp_path / "library.py",
        """
        import ray
        from ray.util import list_named_actors

        @ray.remote
        def nested(x):
            return x + 1
        """,
    )
    script = write(
        tmp_path / "script.py",
        """
        import library, ray

        @ray.remote
        def f(x):
            import ray as inside
            from ray.exceptions import GetTimeoutError
            names = library.list_named_actors()
            return inside.__version__, ray.get(library.nested.remote(x)), names

        @ray.remote
        class Actor:
            def go(self):
                import ray.actor
                ray.actor.exit_actor()

        ray.init(num_cpus=2)
        print(ray.get(f.remote(1)) == (ray.__version__, 2, []))
        actor = Actor.remote()
        try:
            ray.get(actor.go.remote())
        except ray.exceptions.RayActorError as error:
            print(type(error).__name__)
        """,
    )

    assert run(*MODULE, str(script)).stdout.splitlines() == ["True", "ActorDiedError"]


def test_a_traceback_begins_with_the_programs_own_lines(run: Run, tmp_path: Path) -> None:
    script = write(tmp_path / "script.py", "def f():\n    1 / 0\n\nf()\n")

    said = run(*MODULE, "script.py", code=1).stderr

    assert "ZeroDivisionError" in said
    assert re.findall(r'File "(.*)", line (\d+)', said) == [(str(script), "4"), (str(script), "2")]


def test_what_cannot_be_run_is_told_in_one_line(run: Run) -> None:
    assert "nothing.py': No such file or directory\n" in run(*COMMAND, "nothing.py", code=2).stderr
    assert run(*MODULE, "-m", "nothing", code=1).stderr == "No module named nothing in sys.path\n"
    assert "usage" in run(*MODULE, code=2).stderr
    assert "Usage" in run(*COMMAND, code=2).stderr


def test_the_users_own_ray_is_not_replaced_behind_his_back(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "ray.py", "")
    script = write(
        tmp_path / "script.py",
        """
        import ray, zray.compat
        try:
            zray.compat.install()
        except ImportError as error:
            print(error)
        """,
    )

    assert "before the first 'import ray'" in run(sys.executable, str(script)).stdout


def test_example_monte_carlo(run: Run) -> None:
    said = run(*COMMAND, str(EXAMPLES / "monte_carlo_pi.py"), "--tasks=4", "--darts=20000").stdout

    assert "100% of 80000 darts thrown" in said
    assert re.search(r"pi is about 3\.[01]", said)


def test_example_parameter_server(run: Run) -> None:
    said = run(*COMMAND, str(EXAMPLES / "parameter_server.py")).stdout

    assert said.splitlines() == ["synchronous: off by 0.000", "asynchronous: off by 0.000"]


def test_example_wordcount(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "the cat and the dog and the end")
    write(tmp_path / "b.txt", "the dog and a cat")

    said = run(*COMMAND, str(EXAMPLES / "wordcount.py"), "a.txt", "missing.txt", "b.txt").stdout

    assert said.splitlines() == [
        "left out missing.txt: No such file or directory",
        "most common: the, and, cat",
        "other words: 3",
    ]


def test_ray_is_zray_in_processes_that_the_program_starts(run: Run, tmp_path: Path) -> None:
    write(
        tmp_path / "script.py",
        """
        import multiprocessing, subprocess, sys
        import ray

        def version(_):
            return ray.__name__, "zray" in sys.modules

        if __name__ == "__main__":
            for how in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(how).Pool(1) as pool:
                    print(pool.map(version, [0]))
            other = "import ray.util; import ray; print(ray.init.__module__, ray.util.__name__)"
            subprocess.run([sys.executable, "-c", other], check=True)
        """,
    )

    said = run(*COMMAND, "script.py").stdout.splitlines()

    assert said == ["[('ray', True)]"] * 3 + ["zray.api.cluster ray.util"]
