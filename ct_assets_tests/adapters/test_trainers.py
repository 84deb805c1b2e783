"""A trainer is looked up in its source: found, or the nearest name is told; its module is never run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ct_assets.adapters.trainers import check_trainer, trainer_code
from ct_assets.errors import UsageError

FILE = Path("defs.yaml")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose modules cannot be run."""
    folder = tmp_path / "own_trainers_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "forecasting.py").write_text(
        "import a_library_that_is_not_here\nfrom elsewhere import borrowed\n"
        "def recipe(seed): ...\nlater = recipe\nif True:\n    def guarded(seed): ...\n"
    )
    (folder / "everything.py").write_text("from elsewhere import *\n")
    (folder / "broken.py").write_text("def recipe(seed:\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


@pytest.mark.parametrize("function", ["recipe", "borrowed", "later", "guarded"])
def test_what_the_module_defines_assigns_or_imports_is_there(package: Path, function: str) -> None:
    check_trainer(f"{package.name}.forecasting:{function}", FILE)
    check_trainer(f"{package.name}.everything:whatever", FILE)  # `import *` hides what is there
    assert f"{package.name}.forecasting" not in sys.modules


@pytest.mark.parametrize(
    ("trainer", "message", "hint"),
    [
        ("forecasting:recipee", "has no function 'recipee'", "did you mean 'recipe'?"),
        ("forecasting:xyz", "has no function 'xyz'", "borrowed"),
        ("forcasting:recipe", "there is no module", ".forecasting'?"),
        ("broken:recipe", "broken.py, line 1", "no Python"),
    ],
)
def test_what_is_not_is_refused_with_the_nearest_name(package: Path, trainer: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as wrong:
        check_trainer(f"{package.name}.{trainer}", FILE)
    assert message in wrong.value.message
    assert hint in str(wrong.value.hint)


def test_a_package_that_is_not_installed_is_said() -> None:
    with pytest.raises(
        UsageError, match=r"defs.yaml: trainer .*: there is no module 'no_such_team.forecasting'"
    ) as wrong:
        check_trainer("no_such_team.forecasting:recipe", FILE)
    assert "installed where ct runs" in str(wrong.value.hint)


def test_the_code_is_that_of_the_modules_source(package: Path) -> None:
    trainer = f"{package.name}.forecasting:recipe"
    before = trainer_code(trainer)
    assert trainer_code(trainer) == before
    with (package / "forecasting.py").open("a") as source:
        source.write("rate = 0.1\n")
    assert trainer_code(trainer) != before
    assert trainer_code("no_such_team.forecasting:recipe") != before
