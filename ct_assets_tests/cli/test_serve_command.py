"""`ct serve` and `ct score` of a model that nobody has: a mistyped name must not run on and wait for it for ever.

What goes here: what is refused before anything is served. What does not: serving (``ct_assets_tests/serving``).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ct_assets.cli.serve import score, serve
from ct_assets.errors import UsageError


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("shop/purchase_propensty", "did you mean 'shop/purchase_propensity'?"),
        ("nope", "there are: shop/purchase_propensity"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "score"])
def test_a_model_that_nobody_has_is_refused_with_those_there_are(
    pg_url: str, ct_home: Path, monkeypatch: pytest.MonkeyPatch, command: str, model: str, hint: str
) -> None:
    monkeypatch.setenv("CT_DATABASE_URL", pg_url)
    users = ct_home / "users.csv"
    users.write_text("user_id\n42\n")
    asked = {"serve": (serve, ["--port", "0"]), "score": (score, [str(users), "--out", str(ct_home / "s.parquet")])}
    verb, arguments = asked[command]
    found = CliRunner().invoke(verb, [*arguments, "--model", model])
    assert isinstance(found.exception, UsageError), found.output
    assert (found.exception.message, found.exception.hint) == (f"no model {model!r}", hint)
