"""The package as a whole: what it exports, what it ships, and what it must never do."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import re
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import denograd

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(denograd.__file__).parent
DISTRIBUTION = "denograd-optim"
SOURCES = sorted(
    path for folder in ("denograd", "meta", "baselines") for path in (ROOT / folder).rglob("*.py")
)


def _project() -> dict[str, object]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert isinstance(project, dict)
    return project


def _installed_as_wheel() -> bool:
    """Whether the package under test is the installed copy and not the checkout."""
    return PACKAGE.parent != ROOT


def _public_modules() -> list[str]:
    names = [
        module.name
        for module in pkgutil.walk_packages(denograd.__path__, "denograd.")
        if not any(part.startswith("_") for part in module.name.split("."))
    ]
    return ["denograd", *names]


# --------------------------------------------------------------------- what is exported


def test_version_is_the_same_everywhere() -> None:
    assert denograd.__version__ == _project()["version"]
    try:
        installed = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("run from the checkout, with nothing installed")
    assert denograd.__version__ == installed


def test_the_three_names_of_the_readme_are_public() -> None:
    assert {"DenoGrad", "load_denoiser", "save_denoiser", "Denoiser"} <= set(denograd.__all__)


def test_every_name_in_all_exists() -> None:
    if not _installed_as_wheel():
        pytest.skip("the checkout's root has folders that are no packages of ours")
    for name in _public_modules():
        module = importlib.import_module(name)
        listed = getattr(module, "__all__", [])
        assert len(listed) == len(set(listed)), name
        assert not [entry for entry in listed if not hasattr(module, entry)], name


def test_packages_export_what_they_import() -> None:
    """A package's ``__init__`` lists its public names, so that nothing is public by accident."""
    for source in SOURCES:
        if source.name != "__init__.py":
            continue
        tree = ast.parse(source.read_text())
        names = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module != "__future__"
            for alias in node.names
        }
        public = {name for name in names if not name.startswith("_")}
        if not public:
            continue
        listed: set[str] = set()
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                listed = set(ast.literal_eval(node.value))
        assert public <= listed, f"{source}: {sorted(public - listed)} missing from __all__"


# ----------------------------------------------------------------------- what is shipped


def test_py_typed_is_shipped() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_every_module_and_every_weight_of_the_checkout_is_installed() -> None:
    if not _installed_as_wheel():
        pytest.skip("run from the checkout")
    expected = {path.relative_to(ROOT / "denograd") for path in (ROOT / "denograd").rglob("*.py")}
    for folder in ("meta", "baselines"):
        found = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py"))
        expected |= set(found)
    weights = (ROOT / "denograd" / "denoisers" / "weights").glob("*.*")
    expected |= {path.relative_to(ROOT / "denograd") for path in weights if path.name[0] != "."}
    expected |= {path.relative_to(ROOT) for path in (ROOT / "baselines").glob("*.json")}
    templates = (ROOT / "denograd" / "evaluation" / "html" / "templates").glob("*.*")
    expected |= {path.relative_to(ROOT / "denograd") for path in templates}
    missing = sorted(str(path) for path in expected if not (PACKAGE / path).is_file())
    assert not missing, "not in the wheel; is there an __init__.py in every folder?"


def test_nothing_is_installed_outside_denograd() -> None:
    if not _installed_as_wheel():
        pytest.skip("run from the checkout")
    files = importlib.metadata.files(DISTRIBUTION) or []
    tops = {file.parts[0] for file in files if not file.parts[0].endswith(".dist-info")}
    assert tops <= {"denograd", ".."}, "only denograd/ and the command belong there"


def test_the_command_leads_to_a_function() -> None:
    assert _project()["scripts"] == {"denograd": "denograd.cli:main"}
    assert isinstance(importlib.import_module("denograd.cli").main, types.FunctionType)


# ------------------------------------------------------------------- what must never happen

# What opens a pickle, by the name it is called by.
FORBIDDEN = re.compile(
    r"^((c?[pP]ickle|cloudpickle|dill|marshal|shelve|joblib)\.(load|loads|open|Unpickler)"
    r"|torch\.(load|hub\..*|package\..*)|(pd|pandas)\.read_pickle|eval|exec)$"
)
FORBIDDEN_MODULES = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"}


def _offences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if FORBIDDEN.match(name):
                yield node.lineno, name
            allows = [keyword for keyword in node.keywords if keyword.arg == "allow_pickle"]
            if any(ast.unparse(keyword.value) != "False" for keyword in allows):
                yield node.lineno, f"{name}(allow_pickle=...)"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in FORBIDDEN_MODULES:
                    yield node.lineno, f"import {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            for alias in node.names:
                origin = f"{module}.{alias.name}"
                if module.split(".")[0] in FORBIDDEN_MODULES or FORBIDDEN.match(origin):
                    yield node.lineno, f"from {module} import {alias.name}"


def test_no_pickle_is_loaded_anywhere_in_the_package() -> None:
    assert len(SOURCES) > 10
    found = [
        f"{source.relative_to(ROOT)}:{line}: {what}"
        for source in SOURCES
        for line, what in _offences(ast.parse(source.read_text()))
    ]
    assert not found


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(f)",
        "from torch import load",
        "import pickle",
        "from pickle import loads",
        "joblib.load(f)",
        "pd.read_pickle(f)",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_the_search_for_pickles_finds_them(code: str) -> None:
    assert list(_offences(ast.parse(code)))


def test_the_search_for_pickles_leaves_others_alone() -> None:
    assert not list(_offences(ast.parse("import json\njson.load(f)\nsafetensors.torch.load(f)")))


def _requirements(distribution: str, extras: set[str]) -> Iterator[Requirement]:
    for text in importlib.metadata.requires(distribution) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def _licence(distribution: str) -> str:
    metadata = importlib.metadata.metadata(distribution)
    expression = metadata.get("License-Expression")
    if expression:
        return expression
    classifiers = [c for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    # The old License field may hold the whole text, with licences of bundled parts in it.
    return " ".join(classifiers) or (metadata.get("License") or "")[:100]


def test_no_dependency_has_a_copyleft_licence() -> None:
    try:
        waiting = list(_requirements(DISTRIBUTION, {"test", "dev"}))
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("run from the checkout, with nothing installed")
    seen: dict[str, str] = {}
    while waiting:
        requirement = waiting.pop()
        name = requirement.name.lower().replace("_", "-")
        if name in seen or name == DISTRIBUTION:
            continue
        try:
            seen[name] = _licence(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed
        waiting += _requirements(requirement.name, set(requirement.extras))
    assert len(seen) > 20
    assert not [f"{name}: no licence stated" for name, text in seen.items() if not text]
    copyleft = re.compile(r"\b[AL]?GPL|Affero|General Public", re.IGNORECASE)
    assert {name: text for name, text in seen.items() if copyleft.search(text)} == {}


def test_every_dependency_is_pinned_within_its_range() -> None:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            assert "+" not in version, f"{line}: a local version can't be installed elsewhere"
            pins[name.lower().replace("_", "-")] = version
    project = _project()
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    lists = [project["dependencies"], *extras.values()]
    for requirement in (Requirement(text) for each in lists for text in each):
        if requirement.name != DISTRIBUTION:
            assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


# ----------------------------------------------------------------------- what is written


def _python_of(document: str) -> str:
    """The Python blocks of a document joined into one script, at the lines they stand on."""
    lines: list[str] = []
    inside = False
    for line in (ROOT / document).read_text().splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines)


def test_the_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = _python_of("README.md")
    assert script.count("import") > 3
    exec(compile(script, "README.md", "exec"), {"__name__": "__main__"})


def test_files_that_the_documents_link_to_exist() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text()
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), f"{document}: {target}"


def test_the_figures_of_the_readme_have_their_place() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("## Figures\n\n<!-- figures:start -->\n") == 1
    assert text.count("\n<!-- figures:end -->") == 1
