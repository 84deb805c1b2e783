"""Guards against faults in files and contracts (F05, F08 to F30), each with the text that takes it away.

What goes here: rows of the table. What does not: running them (``guards``); faults of the ledger (``removals_ledger``).
"""

from __future__ import annotations

from ct_assets_tests.faults.removal import Removal, both, gone

SOURCE, DOOR, HEADER = "ingest/source.py", "ingest/frontdoor.py", "ingest/header.py"
RECORDS, STRUCTURE, CASTS = "ingest/records.py", "ingest/structure.py", "ingest/casts.py"
FAST, RULES, JUDGE = "ingest/fastcasts.py", "ingest/rules.py", "ingest/judge.py"
ROWJUDGE, ZIP, ZONES = "ingest/rowjudge.py", "ingest/archives.py", "ingest/zones.py"
INBOX, LANDING, STORAGE = "adapters/inbox.py", "adapters/landing.py", "adapters/storage.py"
YAML, SALES = "contracts/safe_yaml.py", "defs/merchandising/sales/contracts/sales_lines.odcs.yaml"
TRIM = "for transform in self._early:"

REMOVALS: tuple[Removal, ...] = (
    # -- F05: half files
    gone("F05", INBOX, "return None if memory.steady_for(path, clock) >= quiet else _SETTLING", "return None", "a file must have been steady for the quiet period"),
    gone("F05", INBOX, "if name in says and measure(path) != says[name]:", "if False:", "a file must be what its manifest says"),
    gone("F05", INBOX, 'if not says.keys() & {"sha256", "size", "rows"}:', "if False:", "a manifest that says nothing is no proof"),
    gone("F05", LANDING, "if again != sha256 or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):", "if False:", "a file that changes while it is copied is not delivered (digest and times)"),
    gone("F05", DOOR, "if torn or self._schema.dialect.final_newline:", "if False:", "a last record that is not whole rejects the file"),
    gone("F05", DOOR, 'self.warnings.append("no line end', '_ = ("no line end', "a missing last line end is said"),
    # -- F08: encodings
    gone("F08", SOURCE, "yield first.removeprefix(BOM_UTF8)", "yield first", "the UTF-8 mark is stripped"),
    gone("F08", SOURCE, "            _refuse_other_marks(first)", "            pass", "marks of other encodings are named"),
    gone("F08", HEADER, 'if b"\\x00" in raw:', "if False:", "UTF-16 without a mark is no header"),
    gone("F08", DOOR, "self._prove_utf8(text, begin, records.consumed)", "pass", "every byte is proved to be UTF-8"),
    # -- F09: RFC 4180
    gone("F09", "ingest/text.py", "_unescaped(text, records, quote) if records.escaped else text", "text", "doubled quotes become one"),
    gone("F09", STRUCTURE, "cut[here] = feed[here] = False", "pass", "line ends inside quotes do not cut (few quotes)"),
    gone("F09", STRUCTURE, "return at[~inside], at[~inside & feed]", "return at, at[feed]", "line ends inside quotes do not cut (much is quoted)"),
    gone("F09", RECORDS, "part.line = part.line + np.searchsorted(piece.inner_lines, part.begin)", "pass", "physical lines count those inside quotes"),
    # -- F10: size of a field, of a row
    gone("F10", RECORDS, 'set_aside(part, (part.ends - part.starts).max(axis=0) > shape.max_field, "field_too_long")', "pass", "a field over the cap is set aside"),
    gone("F10", RECORDS, 'set_aside(part, (part.finish - part.begin) > shape.max_row, "row_too_long")', "pass", "a row over the cap is set aside"),
    gone("F10", "ingest/quarantine.py", "if long.any():", "if False:", "a long record is kept as a preview"),
    # -- F11: control bytes
    gone("F11", RECORDS, "if len(piece.suspects):", "if False:", "control bytes spoil their row"),
    gone("F11", "ingest/quarantine.py", '.str.replace_all("\\x00", "\\u2400", literal=True)', "", "PostgreSQL's text holds no NUL", raises="CharacterNotInRepertoire"),
    gone("F11", STRUCTURE, " & (window != TAB)", "", "a tab is text"),
    # -- F12 to F15: headers
    gone("F12", HEADER, "at = _position(column, found, fold, warnings)", "at = len(positions)", "columns are found by name, not by place"),
    gone("F13", HEADER, 'raise FileRejected("missing_column", line, _missing(column, schema, names))', "at = 0", "a missing column stops the file"),
    gone("F13", HEADER, "    if near:", "    if False:", "the nearest name is told"),
    gone("F13", HEADER, ", *column.renamed_from)", ")", "a declared renamedFrom applies"),
    gone("F14", HEADER, "if unknown and schema.closed:", "if False:", "a closed contract refuses unknown columns"),
    gone("F14", HEADER, "for name in unknown", "for name in ()", "an ignored column is told"),
    gone("F15", HEADER, "if fold(name) in found:", "if False:", "a name stands once in a header"),
    gone("F15", HEADER, 'fold = str.casefold if schema.dialect.header_case == "insensitive" else str', "fold = str", "headerCase decides about case"),
    # -- F16 to F19: types
    gone("F16", RULES, '"type": read.unread,', '"type": None,', "a text that is no value of the type breaks `type`"),
    gone("F16", JUDGE, "if schema.max_bad_fraction is not None and share > schema.max_bad_fraction:", "if False:", "the budget of bad rows"),
    gone("F17", CASTS, "values.append(_guarded(text, form.regex, value))", "values.append(value)", "only declared date forms"),
    gone("F18", CASTS, 'pl.when(foreign).then(pl.lit("?")).otherwise(', "(", "a point is no decimal mark where the comma is declared"),
    gone("F18", CASTS, 'form = column.number_format\n    if', 'form = column.number_format\n    text = text.str.strip_prefix("€").str.replace(",", ".")\n    if', "currency and comma are read only where declared"),
    gone("F18", CASTS, 'regex = f"^{_whole(column, column.precision - column.scale)}{fraction}$"', 'regex = ""', "money is exact: too many decimals are no value"),
    gone("F19", CASTS, "value = pl.when(value.is_finite()).then(value)", "pass", "a number that overflows to infinity is none"),
    both(
        "F19", "NaN and infinity are no numbers: by form, and by value",
        (CASTS, "value = pl.when(value.is_finite()).then(value)", "pass"),
        (CASTS, 'r"^-?" + ("[0-9]+" if column.leading_zeros else "(?:0|[1-9][0-9]*)") + r"(?:\\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$",', '"",'),
    ),
    gone("F19", CASTS, 'f"^{_whole(column, 19)}$"', '""', "no leading zeros in integers (slow reader)"),
    gone("F19", FAST, 'sure &= ((word & np.uint64(255)) != ord("0")) | (length == 1)', "pass", "no leading zeros in integers (fast reader)"),
    # -- F20 to F22: what the contract says of rows
    gone("F20", SALES, "WHERE Quantity < 0 AND NOT (InvoiceNo LIKE 'C%')", "WHERE Quantity < 0 AND Quantity > 0", "negative only on cancellations"),
    gone("F20", SALES, "WHERE Quantity > 0 AND InvoiceNo LIKE 'C%'", "WHERE Quantity < 0 AND Quantity > 0", "positive never on cancellations"),
    gone("F21", ROWJUDGE, "if self._rows_seen is not None:", "if False:", "exact duplicates collapse"),
    gone("F21", ROWJUDGE, "for bit, rule, seen in self._keys:", "for bit, rule, seen in []:", "a key stands once"),
    gone("F21", "ingest/duplicates.py", "new &= ~self._met(held)", "pass", "rows of earlier blocks are remembered"),
    gone("F22", RULES, '"nonexistent_local_time": read.skipped,', '"nonexistent_local_time": None,', "local times that the clock skipped"),
    gone("F22", RULES, '"ambiguous_local_time": read.repeated,', '"ambiguous_local_time": None,', "local times that happened twice"),
    gone("F22", ZONES, 'sure.dt.convert_time_zone("UTC").to_physical()', "naive.to_physical()", "times are stored as UTC"),
    gone("F22", RULES, '    "minimum": _below,', '    "minimum": lambda rule, column: pl.lit(False),', "ancient times"),
    gone("F22", RULES, '"exclusiveMaximum": _not_below,', '"exclusiveMaximum": lambda rule, column: pl.lit(False),', "times of the far future"),
    # -- F23, F24: size and emptiness
    gone("F23", JUDGE, "            yield chunk\n", '            self.__dict__.setdefault("kept", []).append(chunk)\n            yield chunk\n', "no block is kept once it is judged"),
    gone("F24", DOOR, 'raise FileRejected("empty_file", 0, "the file is empty: expected a header and rows")', "return", "an empty file is rejected as such"),
    gone("F24", JUDGE, "if not verdict.read:", "if not verdict.read:\n        return\n    if not verdict.read:", "a header alone is no delivery"),
    gone("F24", "orchestration/freshness.py", "if age <= limit:", "if True:", "a missing day alerts"),
    # -- F25: archives, paths, links
    gone("F25", SOURCE, "if total > READ_BYTES and total > self._dialect.max_ratio * max(self.delivered, 1):", "if False:", "the cap on the ratio of an archive"),
    gone("F25", SOURCE, "if total > self._dialect.max_unpacked_bytes:", "if False:", "the cap on the bytes of an archive"),
    gone("F25", SOURCE, "    if started and not engine.eof:", "    if False:", "a torn gzip stream"),
    gone("F25", SOURCE, "except zlib.error as error:", "except ZeroDivisionError as error:", "what is declared gzip and is none", raises="error"),
    gone("F25", SOURCE, "            _refuse_other_marks(first)", "            return iter(self._text(_gunzip(iter([first]), size)))", "nothing is unpacked that the contract does not declare"),
    gone("F25", ZIP, 'if path.is_absolute() or ".." in path.parts or ":" in member.filename:', "if False:", "a member's name leaves the archive"),
    gone("F25", ZIP, "if len(members) != 1:", "if False:", "one member, no more"),
    gone("F25", ZIP, "if stat.S_ISLNK(member.external_attr >> 16):", "if False:", "a member that is a link"),
    gone("F25", LANDING, "os.O_RDONLY | os.O_NOFOLLOW |", "os.O_RDONLY |", "a link is not followed"),
    gone("F25", LANDING, "if not stat.S_ISREG(os.fstat(handle).st_mode):", "if False:", "folders and pipes are no deliveries", raises="IsADirectoryError"),
    gone("F25", LANDING, 'any(unicodedata.category(c) in ("Cc", "Cs") for c in name)', "False", "names that cannot be shown"),
    gone("F25", INBOX, "if entry.is_symlink():", "if False:", "a link in the inbox is named as one"),
    gone("F25", INBOX, "elif not entry.is_file(follow_symlinks=False):", "elif False:", "a folder in the inbox is no file"),
    # Each act of the test is tried in order and the first (get) fails already: nothing outside is ever deleted.
    gone("F25", STORAGE, 'if not _KEY.fullmatch(key) or any(set(part) <= {"."} for part in key.split("/")) or len(key) > 900:', "if False:", "no key leaves the store"),
    # -- F26 to F28: what values may do to others
    gone("F26", "adapters/quarantine.py", """return f"'{cell}" if""", "return cell if", "cells that a spreadsheet would run"),
    gone("F26", "ingest/columns.py", TRIM, 'for transform in (*self._early, "trim"):', "values are stored as delivered"),
    gone("F27", "adapters/rollups.py", "statement = _filled(rollup, attempt.revision_id, attempt.day)", "attempt.conn.execute(_filled(rollup, attempt.revision_id, attempt.day))\n        continue", "a rollup runs as a sub-select"),
    gone("F27", "adapters/datasets.py", "if not _IDENTIFIER.fullmatch(name):", "if False:", "a table's name is an identifier"),
    gone("F27", "adapters/tables.py", 'sql.Identifier(column.name), sql.SQL(cast("LiteralString", column.postgres_type))', 'sql.SQL(cast("LiteralString", column.name)), sql.SQL(cast("LiteralString", column.postgres_type))', "a column's name is quoted", raises="SyntaxError"),
    gone("F27", "contracts/reading.py", "raise self.at(\n                line,\n                f\"cannot use", "return parse(\"a = '1'\", kinds)\n            raise self.at(\n                line,\n                f\"cannot use", "expressions outside of the grammar"),
    gone("F28", "ingest/infer.py", 'if found.example and "personalData" not in column.custom:', "if found.example:", "no value of a person in a proposed contract"),
    gone("F28", HEADER, "elif not known & set(names):", "elif False:", "a first row that is no header is not shown"),
    gone("F28", "adapters/rows.py", "spool.write(bad)", "spool.write(bad), print(bytes(bad))", "quarantined rows go to the quarantine and nowhere else"),
    gone("F28", "adapters/postgres/server.py", "log_error_verbosity = terse", "log_error_verbosity = default", "the server's log quotes no row"),
    gone("F28", "adapters/postgres/connect.py", "{redact(url)}", "{url}", "no password in an error"),
    gone("F28", "settings.py", 'shown[name] = redact(text) if name.endswith("_url") else text', "shown[name] = text", "no password in the settings shown"),
    gone("F28", "settings.py", '        return "***"', "        return self._value", "a secret never prints"),
    # -- F29, F30: hostile contracts and models
    gone("F29", YAML, 'if getattr(event, "tag", None) is not None:', "if False:", "no tags"),
    gone("F29", YAML, "if self.nodes > MAX_NODES:", "if False:", "aliases that multiply"),
    gone("F29", YAML, "if depth > MAX_DEPTH:", "if False:", "nesting"),
    gone("F29", YAML, "if size > MAX_BYTES:", "if False:", "size"),
    gone("F29", YAML, 'except RecursionError:\n        raise ContractError(file, 1, "nested too deeply"', 'except ZeroDivisionError:\n        raise ContractError(file, 1, "nested too deeply"', "nesting beyond the parser", raises="RecursionError"),
    gone("F29", YAML, "except yaml.YAMLError as error:", "except ZeroDivisionError as error:", "bytes that YAML forbids", raises="ReaderError"),
    gone("F29", YAML, "if key in block:", "if False:", "one key twice"),
    gone("F29", "contracts/properties.py", 'description=str(item.get("description") or "")', 'description=str(item.get("description") or "").replace("<script>", "")', "a description is text, kept as it is"),
    gone("F30", "adapters/artefacts.py", 'raise ArtefactRefused(f"{artefact.key}: not a skops file', 'return __import__("pickle").loads(data)\n        raise ArtefactRefused(f"{artefact.key}: not a skops file', "a pickle is never loaded"),
    both(
        "F30", "types not on our list: refused by us, and by skops",
        ("adapters/artefacts.py", "    if unknown:", "    if False:"),
        ("adapters/artefacts.py", "trusted=sorted(ALLOWED_TYPES | trusted_types)", "trusted=sio.get_untrusted_types(data=data)"),
    ),
)  # fmt: skip
