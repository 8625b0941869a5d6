"""Contracts of ``runtime_env``: files, modules, hooks and Python of jobs, tasks and actors."""

from __future__ import annotations

import os
import sys
import zipfile

import pytest
import ray
import ray.exceptions
import ray.runtime_env

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def zipped(tmp_path):
    """Makes a zip file of these names and texts; its URI."""

    def make(name, **files):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for path, text in files.items():
                archive.writestr(path.replace("__", "/").replace("_DOT_", "."), text)
        return f"file://{tmp_path}/{name}.zip"

    return make


@ray.remote
def here():
    """The names in the directory."""
    return sorted(name for name in os.listdir(".") if name != "__pycache__")


@ray.remote
def read(name):
    with open(name) as file:
        return file.read()


@ray.remote
def value_of(module):
    import importlib

    return importlib.import_module(module).VALUE


@ray.remote
class Actor:
    def here(self):
        return sorted(name for name in os.listdir(".") if name != "__pycache__")

    def here_below(self):
        return ray.get(here.remote())


# ---- a zip file that all nodes see -----------------------------------------------------------


def test_a_task_starts_in_its_working_dir(zipped) -> None:
    """``working_dir`` is the directory of the process, with what the zip file has."""
    uri = zipped("a", a_DOT_txt="one", b_DOT_txt="two")
    task = here.options(runtime_env={"working_dir": uri})
    assert ray.get(task.remote(), timeout=40) == ["a.txt", "b.txt"]
    assert ray.get(read.options(runtime_env={"working_dir": uri}).remote("b.txt")) == "two"


def test_a_folder_that_all_is_in_is_left_out(zipped) -> None:
    """Of a zip file with one folder at its top, as GitHub has them, that is left out."""
    uri = zipped("top", name_DOT_main__a_DOT_txt="one", name_DOT_main__sub__b_DOT_txt="two")
    task = here.options(runtime_env={"working_dir": uri})
    assert ray.get(task.remote(), timeout=40) == ["a.txt", "sub"]


def test_modules_of_the_working_dir_are_found(zipped) -> None:
    """It is on the import path."""
    uri = zipped("m", module_in_dir_DOT_py="VALUE = 3", other_DOT_txt="")
    task = value_of.options(runtime_env={"working_dir": uri})
    assert ray.get(task.remote("module_in_dir"), timeout=40) == 3


def test_py_modules_are_found(zipped) -> None:
    """Each of ``py_modules`` is on the import path; the directory stays as it was."""
    uris = [zipped(f"p{n}", **{f"module_{n}_DOT_py": f"VALUE = {n}", "x": ""}) for n in (1, 2)]
    options = {"runtime_env": {"py_modules": uris}}
    found = [value_of.options(**options).remote(f"module_{n}") for n in (1, 2)]
    assert ray.get(found, timeout=40) == [1, 2]
    assert ray.get(here.options(**options).remote()) == ray.get(here.remote())


def test_an_actor_lives_in_its_working_dir(zipped) -> None:
    """And so do the tasks that it makes."""
    uri = zipped("a", a_DOT_txt="one", b_DOT_txt="two")
    actor = Actor.options(runtime_env={"working_dir": uri}).remote()
    assert ray.get(actor.here.remote(), timeout=40) == ["a.txt", "b.txt"]
    assert ray.get(actor.here_below.remote(), timeout=40) == ["a.txt", "b.txt"]


def test_a_childs_working_dir_replaces_its_parents(zipped) -> None:
    """While variables of both are there."""
    first, second = zipped("one", a="", b=""), zipped("two", c="", d="")

    @ray.remote
    def inner():
        return sorted(os.listdir(".")), os.environ.get("COLOUR"), os.environ.get("SIZE")

    @ray.remote
    def outer():
        env = {"working_dir": second, "env_vars": {"SIZE": "2"}}
        return ray.get(inner.options(runtime_env=env).remote())

    env = {"working_dir": first, "env_vars": {"COLOUR": "red"}}
    found = ray.get(outer.options(runtime_env=env).remote(), timeout=40)
    assert found == (["c", "d"], "red", "2")


def test_many_tasks_of_one_environment(zipped) -> None:
    """Each of them has it."""
    task = here.options(runtime_env={"working_dir": zipped("a", a="", b="")})
    assert ray.get([task.remote() for _ in range(100)], timeout=40) == [["a", "b"]] * 100


def test_a_zip_file_that_is_not_there_fails_the_task() -> None:
    """With a RuntimeEnvSetupError; the function does not run."""
    task = here.options(runtime_env={"working_dir": "file:///no/such/file.zip"})
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match=r"/no/such/file\.zip"):
        ray.get(task.remote(), timeout=40)


def test_a_zip_file_that_is_not_there_fails_calls_of_the_actor() -> None:
    """With the same error."""
    actor = Actor.options(runtime_env={"working_dir": "file:///no/such/file.zip"}).remote()
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError):
        ray.get(actor.here.remote(), timeout=40)


def test_a_file_that_is_no_zip_file_fails_the_task(tmp_path) -> None:
    """With the same error."""
    (tmp_path / "bad.zip").write_text("this is none")
    task = here.options(runtime_env={"working_dir": f"file://{tmp_path}/bad.zip"})
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError):
        ray.get(task.remote(), timeout=40)


def test_others_go_on_while_an_environment_fails() -> None:
    """A task of another environment runs on the same node."""
    bad = here.options(runtime_env={"working_dir": "file:///no/such/file.zip"}).remote()
    assert isinstance(ray.get(here.remote(), timeout=40), list)
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError):
        ray.get(bad, timeout=40)


def test_a_task_without_its_environment_can_be_an_argument() -> None:
    """The task that needs its result fails with what it failed with."""

    @ray.remote
    def use(names):
        return names

    bad = here.options(runtime_env={"working_dir": "file:///no/such/file.zip"}).remote()
    with pytest.raises(ray.exceptions.RayError):
        ray.get(use.remote(bad), timeout=40)


# ---- folders of the driver -------------------------------------------------------------------

FOLDER = """
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "folder")

    def write(name, text=""):
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    @ray.remote
    def names():
        found = []
        for above, _, files in os.walk("."):
            found += [os.path.relpath(os.path.join(above, name), ".") for name in files]
        return sorted(name for name in found if "__pycache__" not in name)
"""


def test_a_jobs_working_dir_is_a_copy(program) -> None:
    """Of the folder as it was; the driver stays where it is."""
    lines = program(
        FOLDER
        + """
    write("a.txt", "one")
    write("sub/b.txt", "two")
    before = os.getcwd()
    ray.init(num_cpus=1, runtime_env={"working_dir": folder})
    write("late.txt")

    @ray.remote
    def where():
        return os.getcwd()

    print(ray.get(names.remote()))
    print(os.getcwd() == before, ray.get(where.remote()) in (folder, before))
"""
    ).stdout.splitlines()
    assert lines == ["['a.txt', 'sub/b.txt']", "True False"]


def test_excludes_leave_files_out(program) -> None:
    """Patterns are those of ``.gitignore``, whose files count as well."""
    lines = program(
        FOLDER
        + """
    for name in ("a.txt", "b.log", "keep.log", "sub/c.txt", "sub/d.log", "data/e.txt", "x/y/z.bin"):
        write(name)
    write(".gitignore", "*.log\\n!keep.log\\n")
    write("sub/.gitignore", "c.txt\\n")
    ray.init(num_cpus=1, runtime_env={"working_dir": folder, "excludes": ["/data/", "*.bin"]})
    print(ray.get(names.remote()))
"""
    ).stdout.splitlines()
    assert lines == ["['.gitignore', 'a.txt', 'keep.log', 'sub/.gitignore']"]


def test_a_jobs_py_modules_are_folders_with_their_names(program) -> None:
    """The folder is the package; an imported module can stand for its folder."""
    lines = program(
        FOLDER
        + """
    write("package_a/__init__.py", "VALUE = 1")
    write("package_a/inner.py", "VALUE = 2")
    write("package_b/__init__.py", "VALUE = 3")
    sys.path.append(folder)
    import package_b
    sys.path.remove(folder)

    @ray.remote
    def values():
        import package_a, package_a.inner, package_b
        where = [package_a.__file__, package_b.__file__]
        return package_a.VALUE, package_a.inner.VALUE, package_b.VALUE, where

    modules = [os.path.join(folder, "package_a"), package_b]
    ray.init(num_cpus=1, runtime_env={"py_modules": modules})
    *found, where = ray.get(values.remote())
    print(found, any(folder in one for one in where))
"""
    ).stdout.splitlines()
    assert lines == ["[1, 2, 3] False"]


def test_a_jobs_working_dir_can_be_a_zip_file(program) -> None:
    """What is in it is at the top of the directory."""
    lines = program(
        FOLDER
        + """
    import zipfile
    write("x")
    with zipfile.ZipFile(folder + ".zip", "w") as archive:
        archive.writestr("a.txt", "one")
        archive.writestr("sub/b.txt", "two")
    ray.init(num_cpus=1, runtime_env={"working_dir": folder + ".zip"})
    print(ray.get(names.remote()))
"""
    ).stdout.splitlines()
    assert lines == ["['a.txt', 'sub/b.txt']"]


def test_a_tasks_working_dir_replaces_the_jobs(program, zipped) -> None:
    """And the job's other fields stay."""
    uri = zipped("own", own_DOT_txt="", b_DOT_txt="")
    lines = program(
        FOLDER
        + f"""
    write("a.txt")
    ray.init(num_cpus=1, runtime_env={{"working_dir": folder, "env_vars": {{"COLOUR": "red"}}}})

    @ray.remote
    def colour():
        return os.environ.get("COLOUR"), sorted(os.listdir("."))

    print(ray.get(names.remote()))
    print(ray.get(colour.options(runtime_env={{"working_dir": {uri!r}}}).remote()))
"""
    ).stdout.splitlines()
    assert lines == ["['a.txt']", "('red', ['b.txt', 'own.txt'])"]


def test_the_context_names_the_package(program) -> None:
    """In place of the folder there is a URI of a zip file."""
    lines = program(
        FOLDER
        + """
    write("a.txt")
    ray.init(num_cpus=1, runtime_env={"working_dir": folder})

    @ray.remote
    def uri():
        return ray.get_runtime_context().runtime_env["working_dir"]

    here = ray.get_runtime_context().runtime_env["working_dir"]
    print("://" in here, here.endswith(".zip"), ray.get(uri.remote()) == here)
"""
    ).stdout.splitlines()
    assert lines == ["True True True"]


@pytest.mark.parametrize(
    "wanted",
    [
        "{'working_dir': '/no/such/folder'}",
        "{'working_dir': 3}",
        "{'working_dir': 'ftp://host/x.zip'}",
        "{'py_modules': ['/no/such/folder']}",
        "{'py_modules': [3]}",
        "{'worker_process_setup_hook': 3}",
        "{'config': {'setup_timeout_seconds': 0}}",
        "{'pip': ['x'], 'uv': ['x']}",
        "{'pip': {'pip_check': True}}",
    ],
)
def test_an_environment_of_a_job_that_cannot_be(program, wanted) -> None:
    """It is an error of ``init``, before anything runs."""
    done = program(f"ray.init(num_cpus=1, runtime_env={wanted})\nprint('went on')", code=1)
    assert "Error" in done.stderr
    assert "went on" not in done.stdout


def test_a_job_config_has_the_jobs_environment_and_namespace(program) -> None:
    """``init(job_config=)``, as beside it ``runtime_env`` and ``namespace``."""
    lines = program(
        """
    from ray.job_config import JobConfig

    config = JobConfig(runtime_env={"env_vars": {"COLOUR": "red"}}, ray_namespace="mine")
    config.set_metadata("who", "me")
    print(config.metadata, config.ray_namespace)
    ray.init(num_cpus=1, job_config=config)

    @ray.remote
    def colour():
        return os.environ.get("COLOUR")

    print(ray.get(colour.remote()), ray.get_runtime_context().namespace)
"""
    ).stdout.splitlines()
    assert lines == ["{'who': 'me'} mine", "red mine"]


# ---- hooks -----------------------------------------------------------------------------------


def test_a_hook_runs_first_in_each_process(program) -> None:
    """``worker_process_setup_hook`` may be a function; it runs before any task or constructor."""
    lines = program(
        """
    def hook():
        import builtins
        builtins.hooked = getattr(builtins, "hooked", 0) + 1

    ray.init(num_cpus=2, runtime_env={"worker_process_setup_hook": hook})

    @ray.remote
    def count():
        import builtins
        return builtins.hooked

    @ray.remote
    class A:
        def __init__(self):
            import builtins
            self.found = builtins.hooked

        def get(self):
            return self.found

    print(set(ray.get([count.remote() for _ in range(20)])), ray.get(A.remote().get.remote()))
    print(ray.get_runtime_context().runtime_env["worker_process_setup_hook"])
"""
    ).stdout.splitlines()
    assert lines == ["{1} 1", "hook"]


def test_a_hook_can_be_named(program) -> None:
    """ "module.function", which the workers can import."""
    lines = program(
        FOLDER
        + """
    write("hooks/__init__.py", "import os\\ndef set_it():\\n    os.environ['HOOKED'] = 'yes'\\n")
    path = [os.path.join(folder, "hooks")]
    env = {"py_modules": path, "worker_process_setup_hook": "hooks.set_it"}
    ray.init(num_cpus=1, runtime_env=env)

    @ray.remote
    def hooked():
        return os.environ.get("HOOKED")

    print(ray.get(hooked.remote()))
"""
    ).stdout.splitlines()
    assert lines == ["yes"]


# ---- Python ----------------------------------------------------------------------------------


def test_the_interpreter_of_a_task() -> None:
    """``py_executable`` is the Python that its process runs."""

    @ray.remote
    def executable():
        return sys.executable

    task = executable.options(runtime_env={"py_executable": sys.executable})
    assert os.path.samefile(ray.get(task.remote(), timeout=40), sys.executable)


# ---- objects ---------------------------------------------------------------------------------


def test_a_runtime_env_config() -> None:
    """``RuntimeEnvConfig`` is a dict with what is said and Ray's defaults."""
    made = ray.runtime_env.RuntimeEnvConfig(setup_timeout_seconds=10)
    assert isinstance(made, dict)
    assert made["setup_timeout_seconds"] == 10
    assert made["eager_install"] is True
    assert ray.runtime_env.RuntimeEnvConfig()["setup_timeout_seconds"] == 600
    env = {"config": made, "env_vars": {"COLOUR": "red"}}

    @ray.remote(runtime_env=env)
    def colour():
        return os.environ["COLOUR"]

    assert ray.get(colour.remote(), timeout=40) == "red"


@pytest.mark.parametrize("seconds", [0, -2, 1.5, "ten"])
def test_a_runtime_env_config_that_cannot_be(seconds) -> None:
    """A timeout is a whole number of seconds above 0, or -1."""
    with pytest.raises((ValueError, TypeError)):
        ray.runtime_env.RuntimeEnvConfig(setup_timeout_seconds=seconds)


def test_an_environment_object_has_methods(zipped) -> None:
    """``RuntimeEnv`` says what its fields are."""
    uri = zipped("a", a="", b="")
    made = ray.runtime_env.RuntimeEnv(working_dir=uri, py_modules=[uri])
    assert made["working_dir"] == uri
    assert made.working_dir() == uri
    assert made.py_modules() == [uri]
    assert made.to_dict()["py_modules"] == [uri]
    assert ray.get(here.options(runtime_env=made).remote(), timeout=40) == ["a", "b"]
