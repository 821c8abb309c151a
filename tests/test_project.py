"""The project as a whole: the public names, the pinned dependencies, the documentation and the form of the sources."""

import ast
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import TINY

import msfnet
from msfnet.cli import app
from msfnet.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


PUBLIC_NAMES = {
    "Checkpoint",
    "Clip",
    "Dataset",
    "EvalResult",
    "Prediction",
    "Preprocessing",
    "Recipe",
    "Recognizer",
    "Run",
    "UserError",
    "VideoDataset",
    "VideoError",
    "VideoItem",
    "Views",
    "__version__",
    "create_model",
    "evaluate",
    "export",
    "list_models",
    "load_recipe",
    "predict",
    "read_clips",
    "read_dataset",
    "register_model",
    "resume",
    "train",
}


def test_public_names():
    assert set(msfnet.__all__) == PUBLIC_NAMES
    assert set(dir(msfnet)) == PUBLIC_NAMES
    assert all(getattr(msfnet, name) is not None for name in msfnet.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = msfnet.nothing


def test_public_names_are_typed():
    """Type checkers read the imports under TYPE_CHECKING, and everybody else the table of modules."""
    tree = ast.parse((ROOT / "msfnet" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name: node.module for node in block.body for alias in node.names}
    assert imported == msfnet._MODULES
    assert (ROOT / "msfnet" / "py.typed").is_file()


def test_import_is_lazy_and_silent():
    script = "import logging, sys, msfnet\nprint([m for m in ('torch', 'numpy', 'av', 'pydantic') if m in sys.modules])"
    script += "\nlogging.getLogger('msfnet.x').warning('unseen')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_constraints_pin_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted}
    pins = (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0].lower() for line in pins.splitlines() if "==" in line}
    assert names <= pinned
    assert "://" not in pins
    assert "@ file" not in pins


def test_torchvision_is_no_dependency():
    assert "torchvision" not in (ROOT / "constraints.txt").read_text()
    script = "import sys, lightning, torchmetrics, msfnet.training.trainer; print('torchvision' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"


def test_documented_commands_exist():
    """Every `msfnet ...` line in README and docs names a command and options that there are."""
    found = 0
    for document in DOCUMENTS:
        for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", document.read_text(encoding="utf-8"), re.S):
            for line in block.splitlines():
                words = line.split("#")[0].split()
                if words[:1] != ["msfnet"] or len(words) < 2 or words[1].startswith("-"):
                    continue
                found += 1
                assert words[1] in app, f"{document.name}: {line}"
                known = {name for argument in app[words[1]].assemble_argument_collection() for name in argument.names}
                options = {word for word in words if word.startswith("--")}
                assert options <= known, f"{document.name}: {line}"
    assert found >= 5


def test_documented_settings_are_recipe_keys():
    """Every `--set` of a documented command is one that a recipe takes."""
    settings = []
    for document in DOCUMENTS:
        for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", document.read_text(encoding="utf-8"), re.S):
            for line in block.splitlines():
                words = shlex.split(line, comments=True) if "--set" in line else []
                settings += [after for word, after in pairwise(words) if word == "--set"]
    assert len(settings) >= 8
    for setting in settings:
        load_recipe("small", [setting])


def test_links_between_documents_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_modules_have_docstrings():
    """Each module says in its first lines what it is for."""
    for path in [*(ROOT / "msfnet").rglob("*.py"), *(ROOT / "tests").glob("test_*.py")]:
        if path.name != "__main__.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_names_of_tests_are_short():
    """A name has a few plain words; what needs a sentence is in the docstring."""
    names = [
        f"{path.name}: {node.name}"
        for path in sorted((ROOT / "tests").glob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) > 60
    ]
    assert not names, "\n".join(names)


def test_every_page_is_in_the_navigation():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^  - .+: (\S+\.md)$", settings, re.M)
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)


def test_api_reference_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: msfnet\.(\w+)$", page, re.M)) == PUBLIC_NAMES - {"__version__"}


def test_citation_names_the_version():
    assert f"\nversion: {msfnet.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_readme_python_runs(video_folder, tmp_path, monkeypatch, capsys):
    """The README's Python example, with the videos and the small recipe of these tests."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[1]
    assert code.count('recipe="small"') == 1
    monkeypatch.chdir(tmp_path)
    shutil.copytree(video_folder, "videos")
    shutil.copy(video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4", "clip.mp4")
    Path("tiny.toml").write_text(load_recipe("small", TINY).to_toml())
    exec(compile(code.replace('recipe="small"', 'recipe="tiny.toml"'), "README.md", "exec"), {})
    assert re.match(r"top-1 accuracy on held-out videos: [\d.]+%\n.*Go(Left|Right)", capsys.readouterr().out, re.S)
    assert (tmp_path / "runs" / "mine" / "report.html").exists()


def test_tables_of_the_documentation_are_up_to_date():
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    for page in tables["TABLES"]:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert text.count("\n|") >= 5
        assert text == tables["filled"](page), f"{page} is out of date: python docs/tables.py"


def test_networks_page_examples_run():
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "networks.md").read_text(encoding="utf-8"), re.S)[1]
    calls = [line for line in code.splitlines() if line.startswith("create_model(")]
    assert len(calls) == 4
    for call in calls:
        with torch.device("meta"):
            assert isinstance(eval(call, {"create_model": msfnet.create_model}), torch.nn.Module), call
