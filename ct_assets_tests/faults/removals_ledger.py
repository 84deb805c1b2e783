"""Guards against faults of processes, database, clocks, Dagster and models (F01 to F07, F36 to F44), and their removal.

What goes here: rows of the table. What does not: running them (``guards``); faults of files (``removals_files``).
"""

from __future__ import annotations

from ct_assets_tests.faults.removal import Removal, both, gone

PUBLISH, REVISION, CONNECT = "adapters/publish.py", "adapters/revision.py", "adapters/postgres/connect.py"
LEDGER, LANDING, INBOX = "adapters/ledger.py", "adapters/landing.py", "adapters/inbox.py"
STORAGE, FEATURES = "adapters/storage.py", "adapters/feature_tables.py"
RUNS, STAGES, SENSORS = "orchestration/runs.py", "orchestration/stages.py", "orchestration/sensors.py"
AUTOMATION, GATES, REGISTRY = "orchestration/automation.py", "training/gates.py", "adapters/registry.py"
COMPARISON, AGAINST_CHAMPION = "training/comparison.py", "training/champion_gates.py"
SCHEMA = "adapters/postgres/migrations/versions/0001_ledger.sql"
NO_TRANSACTION = '__import__("contextlib").nullcontext()'
PENDING = 'if found.state == "pending":\n        return None'
ANY = "if True:\n        return None"
UNPINNED = """class Unpinned(PublishedDataset):
        schema = property(lambda self: load_contract(spec.source.contract).schema(spec.source.schema), lambda self, _: None)

    return Unpinned(spec.name, schema, version, rollups, spec.source.late_correction)"""

REMOVALS: tuple[Removal, ...] = (
    # -- F01 to F03: death of processes, connections, servers
    gone("F01", PUBLISH, "with attempt.conn.transaction():", f"with {NO_TRANSACTION}:", "one transaction a delivery"),
    both(
        "F01", "a rejection is decided once: by the state of the delivery, and by the verdict",
        (PUBLISH, PENDING, 'if found.state in ("pending", "rejected"):\n        return None'),
        (PUBLISH, 'if found is not None and found.state == "rejected" and found.verdict == shown(verdict):', "if False:"),
    ),
    gone("F01", "adapters/crash.py", "os.kill(os.getpid(), signal.SIGKILL)", "pass", "the switch that makes the fault happen"),
    gone("F02", PUBLISH, PENDING, ANY, "what is decided is not written again"),
    gone("F02", RUNS, " | self.untold_days()", "", "days that Dagster does not know are told"),
    gone("F03", CONNECT, "if attempt == attempts or not _passes(error):", "if True:", "a broken connection is tried again"),
    gone("F03", CONNECT, "if attempt == attempts or not _passes(error):", "if attempt == attempts:", "only what can pass is tried again"),
    both(
        "F03", "the server's address is asked for at each attempt: a killed one is started again",
        (PUBLISH, "    def once() -> Decision:", "    url = prepared_url(settings)\n\n    def once() -> Decision:"),
        (PUBLISH, "with connect(prepared_url(settings), autocommit=True) as conn:", "with connect(url, autocommit=True) as conn:"),
        raises="DatabaseUnreachable",
    ),
    # -- F06, F07: the same bytes, other bytes
    gone("F06", SCHEMA, "create unique index delivery_identity", "create index delivery_identity", "the same bytes for a day arrive once"),
    gone("F06", PUBLISH, PENDING, ANY, "what is decided is not published again"),
    gone("F06", LANDING, 'conn.execute("insert into ledger.delivery_alias', '(lambda *_: None)("insert into ledger.delivery_alias', "further names are kept"),
    both(
        "F07", "one current revision a day: the old one is ended, and the table refuses two",
        (REVISION, "        supersede(conn, attempt.place)", "        pass"),
        (SCHEMA, "create unique index publication_current", "create index publication_current"),
    ),
    gone("F07", REVISION, 'held = diff is not None and dataset.late_correction == "approve"', "held = False", "a correction may wait for approval"),
    gone("F07", PUBLISH, "diff = compare(attempt, previous) if previous is not None else None", "diff = None", "what changed is said"),
    # -- F36: features half written
    gone("F36", FEATURES, "with conn.transaction():\n        ensure_tables(conn, source)", f"with {NO_TRANSACTION}:\n        ensure_tables(conn, source)", "one transaction a build"),
    gone("F36", FEATURES, "if any(after.get(day) != digests[day] for day in todo):", "if False:", "revisions published meanwhile undo the build"),
    # -- F37: two at once
    gone("F37", PUBLISH, 'conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", ("|".join(map(str, attempt.place)),))', "pass", "one publisher of a day at a time"),
    gone("F37", PUBLISH, PENDING, ANY, "the loser does nothing"),
    gone("F37", SCHEMA, "create unique index publication_current", "create index publication_current", "the table refuses two current revisions"),
    # -- F38: clocks
    gone("F38", "adapters/attempt.py", "self.delivery.received_at.astimezone(dt.UTC).date()", "dt.datetime.now(dt.UTC).date()", "nobody but the port asks for the time"),
    gone("F38", REVISION, '(select clock_timestamp() as at) t",', "(select timestamptz '2011-01-04 12:00+00' as at) t\",", "the ledger's times are the database's"),
    gone("F38", "adapters/doctor.py", "if abs(skew) <= SKEW_SECONDS:", "if True:", "a wrong clock is told"),
    gone("F38", INBOX, "            return 0.0", "            return now - path.lstat().st_mtime", "only our own looks make a file steady"),
    gone("F38", INBOX, ' or entry.get("since", now) > now:', ":", "a clock that steps back starts the wait again"),
    # -- F39: full disk
    gone("F39", STORAGE, "                os.unlink(name)", "                pass", "a write that failed leaves nothing"),
    gone("F39", STORAGE, "full = error.errno == 28", "full = False", "no space is named"),
    both(
        "F39", "the old bytes stay until the new ones are whole: written beside them, renamed at the end",
        (STORAGE, 'handle, name = tempfile.mkstemp(prefix=".part-", dir=target.parent)', "handle, name = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), str(target)"),
        (STORAGE, "                os.unlink(name)", "                pass"),
    ),
    gone("F39", PUBLISH, "with attempt.conn.transaction():", f"with {NO_TRANSACTION}:", "one transaction a delivery"),
    # -- F40 to F42: Dagster and the ledger
    gone("F40", SENSORS, "keys = sorted(", "keys = list(", "a run key does not depend on order"),
    gone("F40", SENSORS, "range_tags(days), **coordinated(days)})]", "range_tags(days), **coordinated(days)}), dg.RunRequest(key(deliveries[:1]))]", "at most one run for all that is pending"),
    gone("F40", LANDING, 'return ledger.deliveries(conn, pipeline, "pending")', "return ledger.deliveries(conn, pipeline)", "what is decided is not pending"),
    gone("F40", SCHEMA, "create unique index delivery_identity", "create index delivery_identity", "a lost memory takes nothing twice"),
    gone("F41", LEDGER, "values (%s, %s, %s, %s) on conflict do nothing", "values (%s, %s, %s, %s) on conflict (plan_id, step, partition) do update set state = 'planned'", "a plan keeps what is done"),
    gone("F41", LEDGER, "plan_id = %s and state <> 'done' order", "plan_id = %s order", "only what is open is resumed"),
    gone("F41", STAGES, 'failure = outcome.failed[delivery.name] = f"{type(error).__name__}: {error}"', "raise", "one day does not stop the others"),
    gone("F41", RUNS, "if self.bring_data() and self.build_features() and", "if (self.bring_data(), self.build_features()) and", "what follows waits for a failed day"),
    gone("F41", AUTOMATION, "any_deps_match(updated).since(updated)", "any_deps_match(updated).since(updated | dg.AutomationCondition.newly_requested())", "training waits for days that were asked for and failed"),
    gone("F42", "adapters/datasets.py", "return PublishedDataset(spec.name, schema, version, rollups, spec.source.late_correction)", UNPINNED, "a run keeps the contract it read"),
    # -- F43: evidence
    gone("F43", GATES, "if not candidate.folds or not all(map(math.isfinite, (own, *others.values()))):", "if False:", "baselines need finite values on every fold"),
    gone("F43", GATES, "    if not math.isfinite(value):", "    if False:", "coverage must be a number"),
    both(
        "F43", "the same products at the same origins on both sides: by origin, and by row",
        (COMPARISON, "if not candidate or [fold.origin for fold in candidate] != [fold.origin for fold in champion]:", "if not candidate or not champion:"),
        (COMPARISON, "if len(both) != len(own) or len(both) != len(other):", "if False:"),
    ),
    gone("F43", AGAINST_CHAMPION, "    if losses is None:", '    if losses is None:\n        return GateResult(name, 0.0, rule.threshold, "pass", "")\n    if losses is None:', "no evidence about the champion is no pass"),
    gone("F43", COMPARISON, "if not np.isfinite(own).all() or not np.isfinite(other).all() or other.sum() <= 0:", "if False:", "losses that are not finite are no evidence"),
    gone("F43", AGAINST_CHAMPION, "passed = bound < rule.limit if rule.must_win else bound <= rule.limit", "passed = bound <= rule.limit", "a tie is not superior"),
    gone("F43", COMPARISON, 'if losses["stock_code"].n_unique() < MIN_PRODUCTS:', "if False:", "enough products to say anything"),
    gone("F43", GATES, "    if refit is None or refit.forecast.is_empty():", "    if refit is None:\n        return []\n    if refit.forecast.is_empty():", "no refit, no leader"),
    gone("F43", GATES, "any(gate.passed for gate in self.gates) and not any(", "not any(", "no gates at all are no evidence"),
    gone("F43", GATES, "if not np.isfinite(values).all() or (values < 0).any():", "if False:", "forecasts are finite and not negative"),
    gone("F43", "training/learning.py", "except (ValueError, FloatingPointError, MemoryError) as error:", "except ZeroDivisionError as error:", "an estimator that cannot be fitted makes no model", raises="ValueError"),
    # -- F44: the registry
    gone("F44", REGISTRY, "if found.tags.get(RUN_TAG) == version.run_id:", "if False:", "a version is found before it is made"),
    gone("F44", REGISTRY, "client.set_registered_model_alias(model, ALIAS, number)", "pass", "the alias follows", raises="MlflowException"),
    gone("F44", REGISTRY, 'return f"{type(error).__name__}: {error}"', "pass", "a registry that is down is not marked as mirrored"),
)  # fmt: skip
