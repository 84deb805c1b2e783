"""The guide docs/guides/own-model.md does what it says: its code is run as it stands.

What goes here: the blocks of that page. What does not: recipes in general (``test_recipe``).
"""

from __future__ import annotations

import re
import sys
import types
import warnings
from pathlib import Path

import pytest

from ct_assets.adapters import artefacts
from ct_assets.adapters.artefacts import ArtefactRefused
from ct_assets.adapters.retraining import load_fitted
from ct_assets.adapters.storage import LocalStorage
from ct_assets.training.candidate import dataset, load_recipe
from ct_assets.training.evaluation import training_rows
from ct_assets_tests.training.panels import panel, tables

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/own-model.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The guide's own trainer as an importable module."""
    pytest.importorskip("lightgbm")
    (block,) = [block for block in BLOCKS if "def recipe(" in block]
    module = types.ModuleType("guide_forecasting")
    exec(compile(block, str(GUIDE), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_the_guides_training_set_has_the_columns_it_names() -> None:
    (block,) = [block for block in BLOCKS if "to_pandas" in block]
    code = "\n".join(line for line in block.splitlines() if "read_sales" not in line and not line.startswith("url"))
    names = {"sales": types.SimpleNamespace(daily=tables()[0], lines=tables()[1], revisions=None)}
    exec(compile(code, str(GUIDE), "exec"), names)
    columns = names["frame"].columns  # type: ignore[attr-defined]
    assert columns[:2] == ["origin", "stock_code"]
    assert {"label_units", "label_open_days", "label_per_open_day"} <= set(columns)


def test_the_guides_trainer_is_stored_and_loaded_once_its_types_are_named(
    trainer: types.ModuleType, tmp_path: Path
) -> None:
    rows = training_rows(panel(), 93)
    storage = LocalStorage(tmp_path)
    with warnings.catch_warnings():
        # LightGBM names the columns of a numpy matrix itself and then warns that the names are missing
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        fitted = load_recipe("guide_forecasting:recipe", 7).fit(rows)
        stored = artefacts.save(storage, "demand", fitted.payload())
        with pytest.raises(ArtefactRefused, match="lightgbm"):
            load_fitted(storage, stored, "guide_forecasting:recipe")
        (named,) = [block for block in BLOCKS if block.startswith("trusted_types")]
        exec(compile(named, str(GUIDE), "exec"), trainer.__dict__)
        loaded = load_fitted(storage, stored, "guide_forecasting:recipe")
        assert loaded.predict(rows).equals(fitted.predict(rows))


def test_the_guides_comparison_gives_a_summary(trainer: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in BLOCKS if "evaluate(recipe(7)" in block]
    names = {
        "sales": types.SimpleNamespace(daily=tables()[0], lines=tables()[1], revisions=None),
        "recipe": trainer.__dict__["recipe"],
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        exec(compile(block, str(GUIDE), "exec"), names)
    assert "deviance_over_mean_28" in capsys.readouterr().out
    assert len(dataset(*tables()).origins) == 4
