"""An error that teaches is printed as text even when a loader wrapped it; a bug keeps its traceback.

What goes here: the last step of `ct`. What does not: the commands' own errors.
"""

from __future__ import annotations

import click
import pytest

from ct_assets.cli.main import COMMANDS, main
from ct_assets.errors import UsageError


@click.command()
def wrapped() -> None:
    try:
        raise UsageError("'meter-readings' cannot name a table", hint="rename it")
    except UsageError as error:
        raise RuntimeError("while loading components") from error


@click.command()
def bug() -> None:
    try:
        raise UsageError("handled and done with")
    except UsageError:
        raise KeyError("a bug") from None


def test_a_wrapped_error_is_text_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "wrapped", (__name__, "wrapped", ""))
    with pytest.raises(SystemExit) as end:
        main(["wrapped"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: 'meter-readings' cannot name a table\n  rename it\n"


def test_a_bug_is_not_hidden_behind_an_error_that_was_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "bug", (__name__, "bug", ""))
    with pytest.raises(KeyError):
        main(["bug"])
