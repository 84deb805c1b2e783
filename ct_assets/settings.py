"""The one place that reads the environment: profiles as data, URLs, folders, secrets that never print.

What goes here: names of environment variables, their defaults per profile, and the checks that a value makes sense.
What does not: opening anything that a setting points at (adapters do that), and any decision based on a setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ct_assets.errors import UsageError, did_you_mean


class Secret:
    """A text that never shows itself: ``repr``, ``str`` and formatting give ``***``; :meth:`reveal` gives the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Wrap ``value``."""
        self._value = value

    def reveal(self) -> str:
        """The value itself: call it only where it is handed to a client."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled: pass the name of its environment variable instead")


_PASSWORD_IN_QUERY = re.compile(r"(?i)\b(password|sslpassword|secret|token)=[^&\s]+")


def redact(url: str) -> str:
    """``url`` with its password replaced by ``***`` (in the authority and in the query), for messages and logs."""
    parts = urlsplit(url)
    netloc = parts.netloc
    if "@" in netloc:
        user, _, host = netloc.rpartition("@")
        name, colon, password = user.partition(":")
        netloc = f"{name}{':***' if colon and password else colon}@{host}"
    text = urlunsplit((parts.scheme, netloc, parts.path, parts.query, parts.fragment))
    if not parts.netloc and url.startswith(f"{parts.scheme}://"):  # urlunsplit drops the // of postgresql:///db
        text = url
    return _PASSWORD_IN_QUERY.sub(r"\1=***", text)


# What differs between the ways to run. `needs` names the variables without which a profile cannot work.
PROFILES: dict[str, dict[str, object]] = {
    "embedded": {"server": "embedded", "storage": "file://{home}/storage", "executor": "in_process", "needs": ()},
    "compose": {
        "server": "external",
        "storage": "file://{home}/storage",
        "executor": "multiprocess",
        "needs": ("CT_DATABASE_URL",),
    },
    "kubernetes": {
        "server": "external",
        "storage": None,  # pods share no disk
        "executor": "kubernetes",
        "needs": ("CT_DATABASE_URL", "CT_STORAGE_URL"),
    },
}

# Every variable that is read, with its meaning: `ct doctor` and the documentation print this table.
VARIABLES: dict[str, str] = {
    "CT_PROFILE": "embedded | compose | kubernetes (default embedded)",
    "CT_HOME": "folder with all state of an embedded installation (default .ct in the project)",
    "CT_DATABASE_URL": "PostgreSQL URL for everything that has no URL of its own",
    "CT_DAGSTER_URL": "PostgreSQL URL of Dagster's run, event and schedule storage",
    "CT_LEDGER_URL": "PostgreSQL URL of the ledger and the published tables",
    "CT_STREAM_URL": "PostgreSQL URL of stream state, offsets and online rows (they stay together)",
    "CT_ONLINE_URL": "redis://, rediss:// or unix:// of a Redis that answers online reads (default: PostgreSQL answers; see docs/streaming.md)",
    "CT_REGISTRY_URL": "PostgreSQL URL of the model registry",
    "CT_STORAGE_URL": "file:///folder or s3://bucket/prefix for landing bytes, models and reports",
    "CT_S3_ENDPOINT": "endpoint of an S3-compatible store (default: AWS)",
    "CT_S3_REGION": "region of the store (default us-east-1)",
    "CT_S3_ACCESS_KEY": "access key (secret)",
    "CT_S3_SECRET_KEY": "secret key (secret)",
    "CT_LANDING": "folder with the inboxes into which others drop files (default <home>/landing)",
    "CT_QUIET_SECONDS": "how long a file in an inbox keeps its size before it counts as complete (default 5)",
    "CT_KAFKA_URL": "kafka://HOST:PORT[,HOST:PORT]/TOPIC that ct doctor examines",
    "CT_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT | SSL | SASL_PLAINTEXT | SASL_SSL (default PLAINTEXT)",
    "CT_KAFKA_SASL_MECHANISM": "PLAIN | SCRAM-SHA-256 | SCRAM-SHA-512 | OAUTHBEARER | GSSAPI",
    "CT_KAFKA_SASL_USERNAME": "user of SASL",
    "CT_KAFKA_SASL_PASSWORD": "its password (secret)",
    "CT_KAFKA_SSL_CA": "file with the certificates of the authorities that signed the brokers'",
    "CT_KAFKA_SSL_CERTIFICATE": "file with this client's certificate (mutual TLS)",
    "CT_KAFKA_SSL_KEY": "file with this client's private key",
    "CT_KAFKA_SSL_KEY_PASSWORD": "password of that key (secret)",
    "CT_KAFKA_OPTIONS": "further options of librdkafka: name=value;name=value (secret)",
    "CT_KAFKA_READER": "auto | messages | batches: how messages leave librdkafka (default auto)",
    "CT_SCHEMA_REGISTRY_URL": "URL of a Confluent-compatible schema registry",
    "CT_SCHEMA_REGISTRY_USERNAME": "user of the schema registry",
    "CT_SCHEMA_REGISTRY_PASSWORD": "its password (secret)",
    "CT_STREAM_RETENTION_DAYS": "accepted events and dead letters older than this are removed by the worker (default: never)",
    "CT_CODE_VERSION": "version of the code written to the ledger (default: digest of the installed package)",
    "CT_CRASH_AT": "test only: kill -9 this process when it reaches the named point",
}


PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI")
READERS = ("auto", "messages", "batches")


@dataclass(frozen=True)
class KafkaSettings:
    """How to log in to a Kafka cluster and to a schema registry; which topic ``ct doctor`` examines."""

    url: str | None = None
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: Secret | None = None
    ssl_ca: str | None = None
    ssl_certificate: str | None = None
    ssl_key: str | None = None
    ssl_key_password: Secret | None = None
    options: Secret | None = None
    reader: str = "auto"
    member: str | None = None  # the name that a reader keeps in its group over restarts; its supervisor's, no setting
    registry_url: str | None = None
    registry_username: str | None = None
    registry_password: Secret | None = None


@dataclass(frozen=True)
class Settings:
    """Everything that an installation may choose. URLs are None where the embedded server answers."""

    profile: str
    home: Path
    storage_url: str
    landing: Path
    dagster_url: str | None = field(default=None, repr=False)
    ledger_url: str | None = field(default=None, repr=False)
    stream_url: str | None = field(default=None, repr=False)
    registry_url: str | None = field(default=None, repr=False)
    online_url: str | None = field(default=None, repr=False)
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_access_key: Secret | None = None
    s3_secret_key: Secret | None = None
    quiet_seconds: float = 5.0
    stream_retention_days: int | None = None
    code_version: str | None = None
    crash_at: str | None = None
    kafka: KafkaSettings = field(default_factory=KafkaSettings)

    @property
    def embedded(self) -> bool:
        """Whether some URL is answered by the embedded server."""
        return None in (self.dagster_url, self.ledger_url, self.stream_url, self.registry_url)

    @property
    def executor(self) -> str:
        """``in_process`` | ``multiprocess`` | ``kubernetes``: how Dagster runs steps in this profile."""
        return str(PROFILES[self.profile]["executor"])

    def describe(self) -> dict[str, str]:
        """Every setting as text that may be shown: passwords and secrets replaced."""
        shown = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            text = str(value)
            if value is None and name.endswith("_url"):
                text = "(PostgreSQL)" if name == "online_url" else "(embedded)"
            shown[name] = redact(text) if name.endswith("_url") else text
        return shown


def project_root() -> Path:
    """The checkout this package runs from; the current folder when it is installed elsewhere."""
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from ``environ`` (default: the process environment).

    Raises :class:`UsageError` for an unknown profile, a ``CT_`` variable nobody reads, a missing one, a bad value.
    """
    env = {k: v for k, v in (os.environ if environ is None else environ).items() if k.startswith("CT_") and v.strip()}
    _refuse_unknown(env)
    profile = _profile(env)
    home = Path(env.get("CT_HOME") or project_root() / ".ct").expanduser().absolute()
    everything = env.get("CT_DATABASE_URL")
    urls = {
        name: _database_url(f"CT_{name.upper()}", env.get(f"CT_{name.upper()}") or everything)
        for name in ("dagster_url", "ledger_url", "stream_url", "registry_url")
    }
    return Settings(
        profile=profile,
        home=home,
        storage_url=_storage_url(env, profile, home),
        online_url=_online_url(env),
        landing=Path(env.get("CT_LANDING") or home / "landing").expanduser().absolute(),
        s3_endpoint=env.get("CT_S3_ENDPOINT"),
        s3_region=env.get("CT_S3_REGION", "us-east-1"),
        s3_access_key=_secret(env, "CT_S3_ACCESS_KEY"),
        s3_secret_key=_secret(env, "CT_S3_SECRET_KEY"),
        quiet_seconds=_seconds(env),
        stream_retention_days=_days(env, "CT_STREAM_RETENTION_DAYS"),
        code_version=env.get("CT_CODE_VERSION"),
        crash_at=env.get("CT_CRASH_AT"),
        kafka=_kafka(env),
        **urls,
    )


def _refuse_unknown(env: Mapping[str, str]) -> None:
    for name in env:
        if name not in VARIABLES:
            near = did_you_mean(name, VARIABLES)
            if near:  # a near miss is a typing error; anything else may belong to another program
                raise UsageError(f"environment variable {name} is not read by anything here", hint=near)


def _profile(env: Mapping[str, str]) -> str:
    profile = env.get("CT_PROFILE", "embedded")
    if profile not in PROFILES:
        raise UsageError(
            f"CT_PROFILE is {profile!r}; expected one of {', '.join(PROFILES)}", hint=did_you_mean(profile, PROFILES)
        )
    needs = PROFILES[profile]["needs"]
    assert isinstance(needs, tuple)
    missing = [name for name in needs if name not in env and not _covered(name, env)]
    if missing:
        raise UsageError(
            f"profile {profile} has no embedded server or shared disk: {', '.join(missing)} must be set",
            hint="; ".join(f"{name}: {VARIABLES[name]}" for name in missing),
        )
    return profile


def _covered(name: str, env: Mapping[str, str]) -> bool:
    """CT_DATABASE_URL may be replaced by all four of the URLs it stands for."""
    return name == "CT_DATABASE_URL" and all(
        f"CT_{part}_URL" in env for part in ("DAGSTER", "LEDGER", "STREAM", "REGISTRY")
    )


def _database_url(name: str, url: str | None) -> str | None:
    if url is not None and not url.startswith(("postgresql://", "postgres://")):
        scheme = url.split(":", 1)[0]
        raise UsageError(
            f"{name} (or CT_DATABASE_URL) begins with {scheme!r}",
            hint="expected postgresql://user:password@host:port/database",
        )
    return url


def _storage_url(env: Mapping[str, str], profile: str, home: Path) -> str:
    default = PROFILES[profile]["storage"]
    url = env.get("CT_STORAGE_URL") or str(default).format(home=home)
    if not url.startswith(("file:///", "s3://")):
        raise UsageError(
            f"CT_STORAGE_URL is {redact(url)!r}", hint="expected file:///absolute/folder or s3://bucket/prefix"
        )
    return url


def _online_url(env: Mapping[str, str]) -> str | None:
    url = env.get("CT_ONLINE_URL")
    if url is not None and not url.startswith(("redis://", "rediss://", "unix://")):
        raise UsageError(
            f"CT_ONLINE_URL begins with {url.split(':', 1)[0]!r}",
            hint="expected redis://:password@host:6379/0, rediss://... (TLS) or unix:///path/redis.sock; unset: PostgreSQL",
        )
    return url


def _secret(env: Mapping[str, str], name: str) -> Secret | None:
    return Secret(env[name]) if name in env else None


def _kafka(env: Mapping[str, str]) -> KafkaSettings:
    protocol = _choice(env, "CT_KAFKA_SECURITY_PROTOCOL", PROTOCOLS) or "PLAINTEXT"
    mechanism = _choice(env, "CT_KAFKA_SASL_MECHANISM", MECHANISMS)
    if protocol.startswith("SASL") and mechanism is None:
        raise UsageError(
            f"CT_KAFKA_SECURITY_PROTOCOL is {protocol}, but CT_KAFKA_SASL_MECHANISM is not set",
            hint=f"expected one of {', '.join(MECHANISMS)}",
        )
    return KafkaSettings(
        url=env.get("CT_KAFKA_URL"),
        security_protocol=protocol,
        sasl_mechanism=mechanism,
        sasl_username=env.get("CT_KAFKA_SASL_USERNAME"),
        sasl_password=_secret(env, "CT_KAFKA_SASL_PASSWORD"),
        ssl_ca=env.get("CT_KAFKA_SSL_CA"),
        ssl_certificate=env.get("CT_KAFKA_SSL_CERTIFICATE"),
        ssl_key=env.get("CT_KAFKA_SSL_KEY"),
        ssl_key_password=_secret(env, "CT_KAFKA_SSL_KEY_PASSWORD"),
        options=_secret(env, "CT_KAFKA_OPTIONS"),
        reader=_choice(env, "CT_KAFKA_READER", READERS) or "auto",
        registry_url=env.get("CT_SCHEMA_REGISTRY_URL"),
        registry_username=env.get("CT_SCHEMA_REGISTRY_USERNAME"),
        registry_password=_secret(env, "CT_SCHEMA_REGISTRY_PASSWORD"),
    )


def _choice(env: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str | None:
    value = env.get(name)
    if value is not None and value not in choices:
        raise UsageError(
            f"{name} is {value!r}; expected one of {', '.join(choices)}", hint=did_you_mean(value, choices)
        )
    return value


def _seconds(env: Mapping[str, str]) -> float:
    text = env.get("CT_QUIET_SECONDS", "5")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise UsageError(f"CT_QUIET_SECONDS is {text!r}", hint="expected seconds between 0 and 86400")
    return value


def _days(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name)
    if text is None:
        return None
    if not text.strip().isdigit() or not 1 <= int(text) <= 36_500:
        raise UsageError(f"{name} is {text!r}", hint="expected whole days between 1 and 36500; unset: never")
    return int(text)
