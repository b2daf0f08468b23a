"""No module imports itself by way of others, counting imports inside functions and those for type checking; and what
stands outside the package imports modules that there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


def modules(source: Path) -> dict[str, Path]:
    """Dotted name → file; a package has its own name."""
    found = {}
    for path in source.rglob("*.py"):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Every dotted name that a file's import statements may mean, wherever they stand in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield str(node.module)


def graph(source: Path) -> dict[str, set[str]]:
    """Module → modules of ours that importing it loads, packages on the way included."""
    known = modules(source)
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        ends = {each for each in imported(path) if each in known}
        # Importing a.b.c runs a and a.b; a's own __init__ imports nothing of ours until it is asked.
        ways = {end.rsplit(".", up)[0] for end in ends for up in range(1, end.count("."))}
        found[name] = ((ends | ways) & known.keys()) - {name, name.split(".")[0]}
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter(graph(SOURCE)).prepare()
    except CycleError as error:
        raise AssertionError(f"a cycle of imports: {' → '.join(reversed(error.args[1]))}") from None


def test_a_cycle_is_found_also_within_functions_and_type_checking(tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    for name, text in {
        "__init__": "",
        "one": "def f():\n    from house import two\n",
        "two": "if False:\n    from house.three import x\n",
        "three": "import house.one\n",
    }.items():
        (tmp_path / "house" / f"{name}.py").write_text(text)
    assert graph(tmp_path)["house.one"] == {"house.two"}
    with pytest.raises(CycleError) as found:
        TopologicalSorter(graph(tmp_path)).prepare()
    assert set(found.value.args[1]) == {"house.one", "house.two", "house.three"}


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "Makefile", "bench", "deploy", "docs", "notebooks", "tests"]
)
def test_what_is_imported_elsewhere_exists(name: str) -> None:
    """Also by lines of code that stand in texts; a package within ours has nothing but modules."""
    known, found = modules(SOURCE), set()
    for path in [ROOT / name, *(ROOT / name).rglob("*")]:
        if path.is_file() and path.suffix in ("", ".md", ".py", ".sh", ".ipynb", ".yaml", ".yml"):
            text = path.read_text(encoding="utf-8")
            found |= set(re.findall(r"(?:from|import) (lucidate(?:\.\w+)*)", text))
            for package, module in re.findall(r"from (lucidate\.\w+) import (\w+)", text):
                found.add(f"{package}.{module}" if known.get(package, path).name == "__init__.py" else package)
    assert sorted(found - known.keys()) == []
    assert found or name in ("CONTRIBUTING.md", "Makefile", "docs")
