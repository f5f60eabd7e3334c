"""The files beside the code: workflows, hooks, templates, the citation; and the packages that are made of all of it."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.github-issue-forms": [TEMPLATES / "bug.yml", TEMPLATES / "proposal.yml"],
    "vendor.github-issue-config": [TEMPLATES / "config.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600, **options)


def test_files_follow_their_schemas():
    pytest.importorskip("check_jsonschema")
    assert {path for paths in SCHEMAS.values() for path in paths} >= set(TEMPLATES.iterdir())
    for schema, files in SCHEMAS.items():
        assert files
        process = run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files)
        assert process.returncode == 0, process.stdout


def test_workflows_call_what_there_is():
    """Targets of make, extras, test files and Pythons that workflows name; a schema knows none of them."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pythons = {line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if "Python ::" in line}
    called = set()
    for path in WORKFLOWS:
        text = path.read_text()
        made = set(re.findall(r"make ([a-z-]+)", text))
        assert made <= targets, path
        called |= made
        for extras in re.findall(r"'\.\[([a-z,]+)\]'", text):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), path
        for named in re.findall(r"tests/\w+\.py", text):
            assert (ROOT / named).exists(), path
        assert set(re.findall(r'"(3\.\d+)"', text)) <= pythons, path
    assert called == {"test", "check", "docs"}


def test_versions_agree():
    """Of ruff in hooks and extras, of the package in its citation."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    ruff = re.search(r"ruff-pre-commit\n    rev: v(\S+)\n", hooks)[1]
    assert f"ruff=={ruff}" in PROJECT["optional-dependencies"]["dev"]
    assert re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == PROJECT["version"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The wheel and the source distribution, made from a copy of what git knows: the build leaves files behind."""
    pytest.importorskip("build")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("the files of the project are those that git lists")
    found = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard")
    if found.returncode:
        pytest.skip(f"git does not list them: {found.stderr.strip()}")
    listed = {name for name in found.stdout.splitlines() if name and (ROOT / name).exists()}
    for name in listed:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    process = run(sys.executable, "-m", "build", "--outdir", out, source)
    if "Could not find a version that satisfies the requirement setuptools" in process.stdout + process.stderr:
        pytest.skip("no package registry is in reach")
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive, listed


@pytest.mark.slow
def test_packages_hold_what_they_should(packages):
    wheel, archive, listed = packages
    pytest.importorskip("twine")
    process = run(sys.executable, "-m", "twine", "check", "--strict", wheel, archive)
    assert process.returncode == 0, process.stdout
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = {name.removeprefix("src/") for name in listed if name.startswith("src/")}
    assert held == code | {f"kaem_jax/{name}" for name in listed if name.startswith("experiments/")}
    with tarfile.open(archive) as file:
        found = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
    assert listed - found <= {".gitignore", ".ci/run"}


@pytest.mark.release
def test_the_wheel_works_where_there_is_nothing_else(packages, tmp_path):
    """Installed into an empty environment, with what it says it needs, the program trains and reports."""
    wheel, _, _ = packages
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    installed = run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, env=environment)
    assert installed.returncode == 0, installed.stderr[-2000:]
    kaem, folder = tmp_path / "empty" / "bin" / "kaem", tmp_path / "elsewhere"
    folder.mkdir()
    steps = [f"--config.{name}=60" for name in ("train.num_steps", "train.log_every", "evaluation.every_steps")]
    held = [f"--config.{name}=20" for name in ("data.num_held_out", "evaluation.num_reconstructions")]
    settings = [*steps, *held, "--config.checkpoint.every_steps=60"]
    trained = run(kaem, "train", "--config", "digits", "--workdir", "run", *settings, cwd=folder, env=environment)
    assert trained.returncode == 0, trained.stderr
    assert "finished 60 steps" in trained.stderr
    assert run(kaem, "report", "--workdir", "run", cwd=folder, env=environment).returncode == 0
    assert "<html" in (folder / "run" / "report.html").read_text()
