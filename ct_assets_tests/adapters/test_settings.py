"""The one place that reads the environment: profiles differ only where they must, secrets never print."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from ct_assets.errors import UsageError
from ct_assets.settings import PROFILES, VARIABLES, Secret, load, redact

DATABASE = "postgresql://ct:hunter2@db:5432/ct"


def test_profiles_differ_exactly_here() -> None:
    """A change of a profile is a change of this table: review it as such."""
    keys = {frozenset(profile) for profile in PROFILES.values()}
    assert keys == {frozenset({"server", "storage", "executor", "needs"})}
    differing = {k: tuple(PROFILES[p][k] for p in ("embedded", "compose", "kubernetes")) for k in PROFILES["embedded"]}
    assert differing == {
        "server": ("embedded", "external", "external"),
        "storage": ("file://{home}/storage", "file://{home}/storage", None),
        "executor": ("in_process", "multiprocess", "kubernetes"),
        "needs": ((), ("CT_DATABASE_URL",), ("CT_DATABASE_URL", "CT_STORAGE_URL")),
    }


def test_nothing_set_means_embedded_in_the_project() -> None:
    settings = load({})
    assert settings.profile == "embedded"
    assert settings.home.name == ".ct"
    assert settings.home.is_absolute()
    assert settings.embedded
    assert settings.storage_url == f"file://{settings.home}/storage"
    assert settings.landing == settings.home / "landing"


def test_one_url_stands_for_four_and_each_can_move_out() -> None:
    settings = load({"CT_DATABASE_URL": DATABASE, "CT_STREAM_URL": "postgresql://other/stream"})
    assert (settings.dagster_url, settings.ledger_url, settings.registry_url) == (DATABASE,) * 3
    assert settings.stream_url == "postgresql://other/stream"
    assert not settings.embedded


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"CT_PROFILE": "kubernets"}, "did you mean 'kubernetes'"),
        ({"CT_PROFILE": "compose"}, "CT_DATABASE_URL must be set"),
        ({"CT_PROFILE": "kubernetes", "CT_DATABASE_URL": DATABASE}, "CT_STORAGE_URL must be set"),
        ({"CT_HOMEE": "/x"}, "did you mean 'CT_HOME'"),
        ({"CT_LEDGER_URL": "mysql://x"}, "expected postgresql://"),
        ({"CT_STORAGE_URL": "relative/folder"}, "expected file:///absolute/folder"),
        ({"CT_QUIET_SECONDS": "-1"}, "seconds between 0 and 86400"),
        ({"CT_QUIET_SECONDS": "soon"}, "seconds between 0 and 86400"),
        ({"CT_QUIET_SECONDS": "nan"}, "seconds between 0 and 86400"),
    ],
)
def test_wrong_settings_are_named(environ: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError) as wrong:
        load(environ)
    assert says in str(wrong.value)
    assert "hunter2" not in str(wrong.value)


def test_another_programs_variable_is_left_alone() -> None:
    assert load({"CT_SOMETHING_ELSE_ENTIRELY": "1"}).profile == "embedded"


def test_a_compose_profile_may_name_its_four_urls_instead() -> None:
    urls = {f"CT_{part}_URL": DATABASE for part in ("DAGSTER", "LEDGER", "STREAM", "REGISTRY")}
    assert load({"CT_PROFILE": "compose", **urls}).ledger_url == DATABASE


@pytest.mark.fault("F28")
def test_f28_no_secret_is_printed() -> None:
    """The canaries appear in no rendering of the settings; that they are there is asserted first."""
    settings = load(
        {
            "CT_DATABASE_URL": DATABASE,
            "CT_STORAGE_URL": "s3://bucket/prefix",
            "CT_S3_ACCESS_KEY": "canary-access",
            "CT_S3_SECRET_KEY": "canary-secret",
            "CT_ONLINE_URL": "redis://:canary-redis@cache:6379/0",
        }
    )
    assert settings.s3_secret_key is not None
    assert settings.online_url == "redis://:canary-redis@cache:6379/0"
    assert settings.describe()["online_url"] == "redis://:***@cache:6379/0"
    assert load({}).describe()["online_url"] == "(PostgreSQL)"
    assert settings.s3_secret_key.reveal() == "canary-secret"
    assert "hunter2" in str(settings.ledger_url)
    shown = (
        f"{settings!r} {settings} {settings.describe()} {vars(settings)['s3_secret_key']} {[settings.s3_access_key]}"
    )
    for canary in ("hunter2", "canary-access", "canary-secret", "canary-redis"):
        assert canary not in shown


def test_an_online_url_that_is_no_redis_is_refused() -> None:
    with pytest.raises(UsageError, match=r"CT_ONLINE_URL begins with 'postgresql'\s+expected redis://"):
        load({"CT_ONLINE_URL": "postgresql://u:pw@h/db"})


def test_a_secret_is_compared_but_not_carried_away() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert not Secret("")
    assert f"{Secret('a')}" == "***"
    with pytest.raises(TypeError):
        pickle.dumps(Secret("a"))
    with pytest.raises(TypeError):
        copy.copy(Secret("a"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:pw@h:1/d", "postgresql://u:***@h:1/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d?user=u&password=pw", "postgresql://h/d?user=u&password=***"),
        ("postgresql:///d?host=/run/x", "postgresql:///d?host=/run/x"),
        ("postgresql://u:p@ss@h/d", "postgresql://u:***@h/d"),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_every_variable_is_explained() -> None:
    assert all(name.startswith("CT_") and len(meaning) > 10 for name, meaning in VARIABLES.items())


def test_home_may_be_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({"CT_HOME": "state"}).home == tmp_path / "state"
