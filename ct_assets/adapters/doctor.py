"""What is wrong with an installation, and how to mend it: one small check a question.

What goes here: the checks. What does not: printing them, mending anything.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ct_assets.adapters.clock import Clock, SystemClock
from ct_assets.errors import CtError
from ct_assets.settings import Settings, redact

OK, WARN, FAIL = "ok", "warn", "fail"
LOW_BYTES, VERY_LOW_BYTES = 5 << 30, 1 << 30
SKEW_SECONDS = 5.0
STALE = dt.timedelta(days=1)
SAMPLE_OBJECTS, SAMPLE_BYTES = 50, 64 << 20  # stored deliveries read again: a second at most
NEED_LEDGER, NEED_DAGSTER = ("schema", "clock", "pending", "raw", "incidents"), ("dagster", "daemon")
# What mends incidents of a stream; any other is of a delivery
_CURES = {
    "once contract or producer is mended, `ct dead-letter replay` takes the messages again": {"dead_letter_rate"},
    "what a worker said when it stopped names the way on": {"offset_out_of_range", "topic_recreated", "log_truncated"},
}
HEARTBEAT_SECONDS = 120  # the daemon writes one every 30 s


@dataclass(frozen=True)
class Finding:
    """The answer to one question; ``remedy`` is what to do when it is not ok."""

    check: str
    state: str
    message: str
    remedy: str | None = None


def examine(settings: Settings, clock: Clock | None = None) -> list[Finding]:
    """Run every check; one that fails does not keep the others from running."""
    clock = clock or SystemClock()
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("home", lambda: _home(settings)),
        ("disk", lambda: _disk(settings)),
        ("storage", lambda: _storage(settings)),
        ("server", lambda: _server(settings)),
        ("schema", lambda: _schema(settings)),
        ("clock", lambda: _clock(settings, clock)),
        ("pending", lambda: _pending(settings, clock)),
        ("raw", lambda: _raw(settings)),
        ("incidents", lambda: _incidents(settings)),
        ("dagster", lambda: _dagster(settings)),
        ("daemon", lambda: _daemon(settings, clock)),
        ("kafka", lambda: _kafka(settings)),
        ("registry", lambda: _registry(settings)),
        ("online", lambda: _online(settings)),
        ("leftovers", _leftovers),
    ]
    needing = (*NEED_LEDGER, *(NEED_DAGSTER if settings.dagster_url == settings.ledger_url else ()))
    found: dict[str, Finding] = {}
    for name, check in checks:
        if name in needing and found["server"].state == FAIL:
            found[name] = Finding(name, WARN, "not known: see server")
        else:
            found[name] = guarded(name, check)
    return list(found.values())


def guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """Run one check; an error becomes its finding."""
    try:
        return check()
    except CtError as error:
        return Finding(name, FAIL, error.message, error.hint)
    except Exception as error:  # noqa: BLE001 - a doctor that dies of the disease helps nobody
        return Finding(
            name, FAIL, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        )


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("python", OK, f"Python {found}")
    return Finding("python", FAIL, f"Python {found}; 3.11 to 3.13 are supported", "make install PYTHON=python3.12")


def _home(settings: Settings) -> Finding:
    from ct_assets.adapters.postgres.soundness import usable_home

    there = usable_home(settings.home).is_dir()
    return Finding("home", OK, f"{settings.home}" + ("" if there else " (not made yet)"))


def _disk(settings: Settings) -> Finding:
    folder = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free / (1 << 30):.1f} GiB free for {settings.home}"
    if free < VERY_LOW_BYTES:
        return Finding("disk", FAIL, text, "free space: deliveries will fail cleanly, nothing is lost")
    return Finding("disk", WARN if free < LOW_BYTES else OK, text, "free space soon" if free < LOW_BYTES else None)


def _storage(settings: Settings) -> Finding:
    from ct_assets.adapters.storage import open_storage

    storage, key = open_storage(settings), "doctor/probe"
    storage.put(key, b"probe")
    readable = storage.get(key) == b"probe"
    storage.delete(key)
    where = redact(settings.storage_url)
    if readable:
        return Finding("storage", OK, f"{where} takes and returns bytes")
    return Finding("storage", FAIL, f"{where} returned other bytes than were written", "check the store")


def _server(settings: Settings) -> Finding:
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.server import Server
    from ct_assets.adapters.postgres.soundness import sound_data

    if settings.ledger_url is None:
        server = Server(settings.home)
        if server.running() is None:
            sound_data(server.data)
            return Finding(
                "server", WARN, "the embedded PostgreSQL is not running", "ct url starts it (any command does)"
            )
        with connect(server.url()) as conn:
            return Finding("server", OK, f"embedded PostgreSQL {_version(conn)} in {server.base}")
    with connect(settings.ledger_url) as conn:
        return Finding("server", OK, f"PostgreSQL {_version(conn)} at {redact(settings.ledger_url)}")


def _version(conn) -> str:
    return f"{conn.info.server_version // 10000}.{conn.info.server_version % 10000}"


def _reachable(settings: Settings) -> str | None:
    """URL of the ledger without starting anything; None when the embedded server does not run."""
    from ct_assets.adapters.postgres.server import Server

    if settings.ledger_url is not None:
        return settings.ledger_url
    server = Server(settings.home)
    return server.url() if server.running() else None


def _needs_server(check: str) -> Finding:
    return Finding(check, WARN, "not known while the server does not run", "ct url starts it")


def _schema(settings: Settings) -> Finding:
    from ct_assets.adapters.postgres.migrate import check

    url = _reachable(settings)
    if url is None:
        return _needs_server("schema")
    found = check(url)
    if found.behind:
        text = f"schema {found.found or '(none)'}, this code needs {found.needed}"
        return Finding("schema", FAIL, text, "ct db migrate")
    return Finding("schema", OK, f"schema {found.found}")


def _clock(settings: Settings, clock: Clock) -> Finding:
    from ct_assets.adapters.postgres.connect import connect

    url = _reachable(settings)
    if url is None:
        return _needs_server("clock")
    with connect(url) as conn:
        row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    skew = (clock.now() - row[0]).total_seconds()
    text = f"this machine's clock is {skew:+.1f} s against the database's"
    if abs(skew) <= SKEW_SECONDS:
        return Finding("clock", OK, text)
    return Finding("clock", WARN, text, "synchronise the clocks (NTP); the ledger uses the database's time either way")


def _pending(settings: Settings, clock: Clock) -> Finding:
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.status import rows

    url = _reachable(settings)
    if url is None:
        return _needs_server("pending")
    query = (
        "select pipeline, count(*) n, min(received_at) since from ledger.delivery where state = 'pending' group by 1"
    )
    with connect(url) as conn:
        found = rows(conn, query, {})
    if not found:
        return Finding("pending", OK, "every delivery is decided")
    text = ", ".join(f"{row['pipeline']}: {row['n']} since {row['since']:%Y-%m-%d %H:%M}" for row in found)
    late = any(clock.now() - row["since"] > STALE for row in found)
    remedy = "; ".join(f"ct run --pipeline {row['pipeline']}" for row in found)
    return Finding("pending", WARN if late else OK, f"waiting deliveries: {text}", remedy if late else None)


def _raw(settings: Settings) -> Finding:
    """A sample of the stored deliveries against their digests: what a replay would read."""
    from ct_assets.adapters.landing import damaged
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.storage import open_storage

    url = _reachable(settings)
    if url is None:
        return _needs_server("raw")
    with connect(url) as conn:
        read, wrong = damaged(conn, open_storage(settings), objects=SAMPLE_OBJECTS, total_bytes=SAMPLE_BYTES)
    if not wrong:
        return Finding("raw", OK, f"{read} stored deliveries read again: the bytes that were delivered")
    shown = ", ".join(f"{pipeline} {name}" for pipeline, name in wrong[:5]) + (" ..." if len(wrong) > 5 else "")
    text = f"{len(wrong)} of {read} stored deliveries are damaged or gone: {shown}"
    return Finding(
        "raw", FAIL, text, f"deliver these files again, which repairs them: ct deliver --pipeline {wrong[0][0]} FILE"
    )


def _incidents(settings: Settings) -> Finding:
    from ct_assets.adapters.incidents import open_incidents
    from ct_assets.adapters.postgres.connect import connect

    url = _reachable(settings)
    if url is None:
        return _needs_server("incidents")
    with connect(url) as conn:
        found = open_incidents(conn)
    if not found:
        return Finding("incidents", OK, "no open incident")
    text = "; ".join(f"{row['dataset']} {row['day'] or ''} {row['rule']} (x{row['occurrences']})" for row in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    rules = {str(row["rule"]) for row in found}
    cures = [cure for cure, cured in _CURES.items() if rules & cured]
    if rules - {rule for cured in _CURES.values() for rule in cured}:
        cures.append("deliver a mended file")
    return Finding("incidents", WARN, f"{len(found)} open: {text}{more}", "; ".join(["ct status shows them", *cures]))


def _dagster(settings: Settings) -> Finding:
    from ct_assets.adapters.postgres.connect import connect

    url = _dagster_url(settings)
    if url is None:
        return _needs_server("dagster")
    with connect(url) as conn:
        row = conn.execute("select to_regclass('public.runs') is not null").fetchone()
    made = bool(row and row[0])
    return Finding("dagster", OK, "Dagster's storage is reachable" + ("" if made else " (empty: nothing ran yet)"))


def _daemon(settings: Settings, clock: Clock) -> Finding:
    """Dagster's own sensors cannot tell that their daemon is dead (F51): its heartbeat is read from outside."""
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.status import rows

    url = _dagster_url(settings)
    if url is None:
        return _needs_server("daemon")
    with connect(url) as conn:
        there = rows(conn, "select to_regclass('public.daemon_heartbeats') is not null as made", {})[0]["made"]
        beats = rows(conn, "select daemon_type, timestamp as at from daemon_heartbeats", {}) if there else []
    if not beats:
        return Finding("daemon", OK, "no Dagster daemon has run here (schedules and sensors need one: make ui)")
    ages = {row["daemon_type"]: (clock.now().replace(tzinfo=None) - row["at"]).total_seconds() for row in beats}
    silent = sorted(name for name, age in ages.items() if age > HEARTBEAT_SECONDS)
    if not silent:
        return Finding("daemon", OK, f"{len(ages)} daemons alive")
    oldest = max(ages.values())
    return Finding("daemon", WARN, f"silent for up to {oldest:.0f} s: {', '.join(silent)}", "start it again: make ui")


def _dagster_url(settings: Settings) -> str | None:
    from ct_assets.adapters.postgres.server import Server

    if settings.dagster_url is not None:
        return settings.dagster_url
    server = Server(settings.home)
    return server.url("dagster") if server.running() else None


def _kafka(settings: Settings) -> Finding:
    """The topic of CT_KAFKA_URL, against the longest dedup horizon of the streaming pipelines."""
    from ct_assets.adapters.datasets import load_specs
    from ct_assets.adapters.events import examination
    from ct_assets.streaming.definition import load_definition

    streams = [spec.source.stream for spec in load_specs([]).values() if spec.source.stream is not None]
    horizon = max((load_definition(path).acceptance.dedup_horizon_us for path in streams), default=0)
    return Finding("kafka", *examination.topic(settings, horizon))


def _registry(settings: Settings) -> Finding:
    from ct_assets.adapters.events import examination

    return Finding("registry", *examination.registry(settings))


def _online(settings: Settings) -> Finding:
    """The Redis of CT_ONLINE_URL."""
    from ct_assets.adapters.stream import redis_examination

    return Finding("online", *redis_examination.redis_store(settings))


def _leftovers() -> Finding:
    """Data folders under /var/tmp whose home is gone: never removed unasked unless the home was temporary."""
    from ct_assets.adapters.postgres.location import ELSEWHERE

    orphans = []
    for marker in ELSEWHERE.glob("ct-assets-postgres-*/home"):
        try:
            if not Path(marker.read_text().strip()).exists():
                orphans.append(str(marker.parent))
        except OSError:
            continue
    if not orphans:
        return Finding("leftovers", OK, "no data folder without its home")
    return Finding(
        "leftovers", WARN, f"data folders whose home is gone: {', '.join(orphans)}", "remove them if you are sure"
    )
