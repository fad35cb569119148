"""Erasure and access, end to end: people go everywhere and stay gone, and everybody else is as if they had never been.

The truth is a second warehouse with the same keys that was given the same files without those people's lines. What is
left of them is looked for in every column of every table, in the planner's statistics and in every file of the home.
The tests of this module look at one warehouse in the order in which things happen to it: keep their order.
"""

import base64
import csv
import gzip
import hashlib
import hmac
import io
import json
import os
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from support import (
    HEADER,
    KEY,
    agora,
    agora_sql,
    execute,
    finish,
    one,
    rows_of,
    start,
    wait_for_a_waiter,
    wait_until,
)

from warehouse.connections import connect, parameters
from warehouse.embedded_account import binaries, server_account

pytestmark = pytest.mark.once

SEED, USERS, EVENTS = 770031, 1200, 30_000
ERASED = 100
SUPPRESSION_KEY = bytes(range(7, 39)).hex()
PERSON = 7
EMAIL = "canary.person@example.org"
NUMBER = re.compile(rb"(?<![0-9])-?[0-9]{6,20}(?![0-9])")


@dataclass
class Shop:
    """What was delivered, by file name; the people erased; and what was said and seen on the way."""

    folder: Path
    lines: dict[str, list[bytes]]
    everybody: list[str]
    erased: list[str]
    user_ids: dict[str, int] = field(default_factory=dict)

    @property
    def canaries(self) -> set[int]:
        """Delivered ids and pseudonyms of those erased."""
        return {int(raw_id) for raw_id in self.erased} | {self.user_ids[raw_id] for raw_id in self.erased}

    def about_the_erased(self, line: bytes) -> bool:
        return not set(re.findall(rb"[0-9]+", line.replace(b"\0", b""))).isdisjoint(
            raw_id.encode() for raw_id in self.erased
        )


def write(folder: Path, name: str, lines: Iterable[bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(gzip.compress(b"\n".join([HEADER.encode(), *lines]) + b"\n", mtime=0))
    return folder / name


@pytest.fixture(scope="module")
def shop(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Two simulated months and a file of lines that are broken in every way we know, some about people to be erased."""
    folder = tmp_path_factory.mktemp("erasure")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AGORA_KEY_ECOMMERCE", KEY)
        monkeypatch.setenv("AGORA_KEY_SUPPRESSION", SUPPRESSION_KEY)
        size = ("--users", USERS, "--events", EVENTS, "--months", 2)
        agora("simulate", "ecommerce", "--out", folder / "simulated", "--seed", SEED, *size)
        lines = {
            path.name: gzip.decompress(path.read_bytes()).splitlines()[1:]
            for path in sorted((folder / "simulated").glob("*.gz"))
        }
        everybody = sorted(json.loads((folder / "simulated" / "manifest.json").read_text())["users"])
        chance = random.Random(SEED)
        erased = chance.sample(everybody, ERASED)
        kept = chance.sample(sorted(set(everybody) - set(erased)), 3)
        lines["2019-Oct.late.csv.gz"] = [line for raw_id in (*erased[:3], *kept) for line in broken_lines(raw_id)]
        shop = Shop(folder, lines, everybody, erased)
        for name, content in lines.items():
            write(folder / "all", name, content)
            write(folder / "without", name, [line for line in content if not shop.about_the_erased(line)])
        agora("load", "ecommerce.events", folder / "all")
        said = agora("pseudonym", "ecommerce", stdin="\n".join(everybody))
        shop.user_ids = {row["raw_id"]: int(row["user_id"]) for row in csv.DictReader(io.StringIO(said))}
        yield shop


def broken_lines(raw_id: str) -> list[bytes]:
    good = f"2019-10-05 10:00:00 UTC,view,4804056,2053013554658804075,audio.headphone,apple,160.57,{raw_id},"
    good += "c5f9c8b0-6f5b-4d3c-9a51-1f0d1f4f3c11"
    swapped = good.split(",")
    return [
        good.encode(),
        good.replace("apple", EMAIL).encode(),
        good.replace("160.57", "dear").encode(),
        good.replace("audio", '"audio').encode(),
        good.rsplit(",", 1)[0].encode(),
        (good + "," + EMAIL).encode(),
        good.replace(f",{raw_id},", f',"{raw_id}",').replace("160.57", "?").encode(),
        good.replace(f",{raw_id},", f",00{raw_id}.0,").encode(),
        ",".join(reversed(swapped)).encode(),
        good.encode("utf-16-le"),
        good.replace("apple", "appl\N{LATIN SMALL LETTER E WITH ACUTE}").replace("view", "vu").encode("latin-1"),
    ]


# --- looking everywhere -----------------------------------------------------------------------------------------


def numbers_in_database() -> set[int]:
    """Every number of six digits or more in any column of any table, catalogues and statistics included."""
    found: set[int] = set()
    with connect() as connection:
        tables = connection.execute(
            "select relnamespace::regnamespace::text, relname from pg_class where relkind in ('r', 'p', 'm', 'v')"
            " and not (relnamespace = 'pg_catalog'::regnamespace and relname in ('pg_authid', 'pg_shadow'))"
            " and relname !~ 'user_mapping' order by 1, 2"
        ).fetchall()
        for schema, name in tables:
            try:
                with connection.transaction(), connection.cursor() as cursor:
                    statement = sql.SQL("copy (select * from {}) to stdout").format(
                        sql.Identifier(schema.strip('"'), name)
                    )
                    with cursor.copy(statement) as copy:
                        for block in copy:
                            found.update(int(number) for number in NUMBER.findall(bytes(block)))
            except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InternalError_):
                # for superusers only, or of what this platform has not; our own are all readable
                assert schema in ("pg_catalog", "information_schema")
    return found


def bytes_in_files(home: Path) -> Iterator[tuple[Path, bytes]]:
    for path in home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            yield path, gzip.decompress(content) if path.suffix == ".gz" else content


def files_naming(home: Path, canaries: set[int]) -> list[str]:
    texts = {str(canary).encode() for canary in canaries}
    return [
        str(path.relative_to(home)) for path, content in bytes_in_files(home) if texts & set(NUMBER.findall(content))
    ]


def dump(home: Path) -> bytes:
    """A whole dump of the database, as somebody who got hold of one would have it."""
    account = server_account()
    where = parameters()
    result = subprocess.run(
        [binaries(account) / "pg_dump", "-h", where.host, "-p", str(where.port), "-U", where.user, where.database],
        env=os.environ | {"PGPASSWORD": where.password or "", "PGDATABASE": where.database},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    assert b"COPY raw_ecommerce.events" in result.stdout
    return result.stdout


def accounts_do_not_balance() -> list[tuple[object, ...]]:
    return rows_of(
        "select file_name from audit.loads where status = 'loaded'"
        " and rows_read is distinct from rows_landed + rows_quarantined + rows_suppressed"
        " union all select loads.file_name from audit.loads as loads where status = 'loaded' and raw_purged_at is null"
        " and rows_landed <> (select count(*) from raw_ecommerce.events where _load_id = loads.load_id)"
        " union all select loads.file_name from audit.loads as loads where status = 'loaded'"
        " and rows_landed <> (select sum(rows_landed) from audit.load_slices where load_id = loads.load_id)"
        " union all select loads.file_name from audit.loads as loads where status = 'loaded'"
        " and rows_quarantined <> (select count(*) from quarantine.rows where load_id = loads.load_id)"
    )


# --- before -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Before:
    """What stood before anybody was erased."""

    rows_suppressed: int
    exported: dict[str, object]


@pytest.fixture(scope="module")
def before(shop: Shop) -> Before:
    agora("run", "ecommerce")
    agora("dbt", "build", "--target", "dev", "--resource-type", "seed", "--resource-type", "model")
    # a generation that a killed build left
    execute("create schema ecommerce_next_20000101000000000000 authorization transformer")
    with connect("transformer") as connection:
        connection.execute(
            "create table ecommerce_next_20000101000000000000.dim_users as select * from ecommerce.dim_users"
        )
        # made by hand, the key of another type
        connection.execute('create table staging."Old ""Users""" as select user_id::numeric from ecommerce.dim_users')
    exported = json.loads(agora("rgpd", "export", "ecommerce", stdin=shop.erased[0]))
    return Before(one("select sum(rows_suppressed) from audit.loads"), exported)


def test_the_search_finds_them_while_they_are_there(before: Before, shop: Shop, warehouse: Path) -> None:
    found = numbers_in_database()
    pseudonyms = {shop.user_ids[raw_id] for raw_id in shop.erased}
    assert pseudonyms <= found
    # delivered ids are nowhere, of nobody
    assert not {int(raw_id) for raw_id in shop.everybody} & found
    assert accounts_do_not_balance() == []


def test_no_file_of_the_home_names_anybody_or_holds_an_email(before: Before, shop: Shop, warehouse: Path) -> None:
    everybody = {int(raw_id) for raw_id in shop.everybody} | set(shop.user_ids.values())
    (warehouse / "logs" / "planted.log").write_text(f"id {shop.erased[0]} seen")
    assert files_naming(warehouse, everybody) == ["logs/planted.log"]
    (warehouse / "logs" / "planted.log").unlink()
    held = [str(path) for path, content in bytes_in_files(warehouse) if EMAIL.encode() in content]
    assert held == []
    assert EMAIL not in agora("sql", "select * from raw_ecommerce.events, quarantine.rows limit 0")
    assert one("select count(*) from raw_ecommerce.events where brand like '%@%'") == 0


def test_an_export_has_all_that_the_files_say_of_a_person(before: Before, shop: Shop) -> None:
    raw_id = shop.erased[0].encode()
    simulated = [line for name, lines in shop.lines.items() if "late" not in name for line in lines]
    naming = [line.split(b",") for line in simulated if raw_id in line.split(b",")]
    theirs = [fields for fields in naming if len(fields) == 9 and fields[PERSON] == raw_id]
    exported = before.exported
    landed = exported["tables"]["raw_ecommerce.events"]
    quarantined = exported["quarantine"]
    # of the broken lines one is good, of six the id can be read and of four not
    assert len(landed) + len(quarantined) == len(theirs) + 1 + 6
    assert exported["unreadable_line_count"] == len(naming) - len(theirs) + 4
    assert Counter(row["event_time"][:19].replace("T", " ") for row in landed) <= Counter(
        ["2019-10-05 10:00:00", *(fields[0].decode()[:19] for fields in theirs)]
    )
    assert sum(EMAIL in row["line"] for row in quarantined) == 1
    assert exported["user_id"] == shop.user_ids[shop.erased[0]]
    assert {
        "raw_ecommerce.events", "raw_ecommerce.users", "intermediate.int_ecommerce__events",
        "intermediate.int_ecommerce__user_totals",
        "ml_ecommerce.customer_segments", "ecommerce.dim_users", "ecommerce.customer_segments",
    } <= set(exported["tables"])  # fmt: skip
    assert exported["terms"]["raw_ecommerce.events"]["retention"].startswith("90 days")
    assert exported["terms"]["ecommerce.dim_users"]["purpose"]
    for name, rows in exported["tables"].items():
        schema, table = name.split(".")
        statement = sql.SQL("select count(*) from {} where user_id = %s").format(sql.Identifier(schema, table))
        with connect() as connection:
            assert connection.execute(statement, (exported["user_id"],)).fetchone() == (len(rows),)


def test_an_export_is_of_one_person_and_says_when_there_is_none(before: Before, shop: Shop) -> None:
    assert "Nothing is held on this person." in agora("rgpd", "export", "ecommerce", stdin="1234567890123\n")
    assert "of one person" in agora("rgpd", "export", "ecommerce", stdin="\n".join(shop.erased[:2]), expect=2)
    assert "of one person" in agora("rgpd", "export", "ecommerce", expect=2)
    said = agora("rgpd", "export", "ecommerce", stdin=f"{EMAIL}\n", expect=2)
    assert said == "agora: Line 1: the id is not a plain whole number.\n"


# --- what must not happen ---------------------------------------------------------------------------------------


def test_an_unknown_person_changes_nothing(before: Before, shop: Shop) -> None:
    said = agora("rgpd", "erase", "ecommerce", stdin="1234567890123\n")
    assert "Nothing is held on this person: there is nothing to erase." in said
    assert "1234567890123" not in said
    assert one("select count(*) from audit.suppressions") == 0
    assert one("select count(*) from audit.erasures") == 0
    assert one("select count(*) from audit.keys where domain = 'suppression'") == 0


def test_bad_requests_are_told_in_one_sentence(before: Before, shop: Shop) -> None:
    said = agora("rgpd", "erase", "ecommerce", expect=2)
    assert "No id was given" in said
    said = agora("rgpd", "erase", "ecommerce", stdin=f"{shop.erased[0]}\nMr Smith\n", expect=2)
    assert "agora: Line 2: the id is not a plain whole number.\n" in said
    assert "Smith" not in said
    wrong = bytes(32).hex()
    said = agora("rgpd", "erase", "ecommerce", stdin=shop.erased[0], expect=2, AGORA_KEY_ECOMMERCE=wrong)
    assert "The key for ecommerce is not the one the database was filled with" in said
    said = agora("rgpd", "erase", "ecommerce", stdin=shop.erased[0], expect=2, AGORA_KEY_ECOMMERCE="")
    assert "which is missing" in said
    said = agora("rgpd", "erase", "ecommerce", stdin=shop.erased[0], expect=2, AGORA_KEY_QUARANTINE=wrong)
    assert "The key for quarantine is not the one" in said
    assert one("select count(*) from audit.suppressions") == 0
    assert one("select count(*) from raw_ecommerce.users where user_id = %s", shop.user_ids[shop.erased[0]]) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "create table public.copy as select * from ecommerce.dim_users",
        "create materialized view public.copy as select * from ecommerce.dim_users",
    ],
)
def test_copies_that_cannot_be_erased_are_named_and_nothing_is_done(before: Before, shop: Shop, statement: str) -> None:
    execute(statement)
    said = agora("rgpd", "erase", "ecommerce", stdin=shop.erased[0], expect=2)
    assert "Rows about people may be in public.copy, which the steward may not delete from: drop it first." in said
    assert one("select count(*) from audit.suppressions") == 0
    execute(statement.split(" as ")[0].replace("create", "drop"))


def test_an_erasure_killed_midway_has_done_nothing(before: Before, shop: Shop) -> None:
    # the last table it deletes from is locked: it has deleted from others by then
    with connect() as connection:
        connection.execute("lock table audit.suppressions in access exclusive mode")
        process = start("rgpd", "erase", "ecommerce")
        assert process.stdin
        process.stdin.write(shop.erased[0] + "\n")
        process.stdin.close()
        wait_until(
            "select count(*) > 0 from pg_locks where not granted and relation = to_regclass('audit.suppressions')"
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until("select count(*) = 0 from pg_stat_activity where application_name = 'agora:steward'")
    assert one("select count(*) from raw_ecommerce.events where user_id = %s", shop.user_ids[shop.erased[0]]) > 0
    assert one("select count(*) from ecommerce.dim_users where user_id = %s", shop.user_ids[shop.erased[0]]) == 1
    assert one("select count(*) from audit.suppressions") == 0
    assert accounts_do_not_balance() == []


# --- erasure ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class After:
    """What was said of the erasure, the marts' hashes after it, and those of the warehouse without these people."""

    said: str
    checksum: str
    built_before: list[tuple[object, ...]]
    checksum_without_them: str


@pytest.fixture(scope="module")
def after(before: Before, shop: Shop, other_home: Path) -> After:
    def build_without_them() -> str:
        agora("load", "ecommerce.events", shop.folder / "without", home=other_home)
        agora("run", "ecommerce", home=other_home)
        return agora("checksum", "ecommerce", home=other_home)

    others = "select xmin::text, user_id from intermediate.int_ecommerce__events where user_id <> all(%s) order by 1, 2"
    pseudonyms = [shop.user_ids[raw_id] for raw_id in shop.erased]
    built_before = rows_of(others, pseudonyms)
    with ThreadPoolExecutor(1) as executor:
        without_them = executor.submit(build_without_them)
        # a load in progress holds this lock
        with connect("loader") as connection:
            connection.execute("select pg_advisory_xact_lock(hashtext('load ecommerce.events'))")
            process = start("rgpd", "erase", "ecommerce")
            assert process.stdin
            process.stdin.write("\n".join(shop.erased))
            process.stdin.close()
            process.stdin = None
            wait_for_a_waiter()
            assert one("select count(*) from audit.erasures") == 0
        said = finish(process)
        assert built_before == rows_of(others, pseudonyms), "a person's erasure rebuilds nobody else's rows"
        return After(said, agora("checksum", "ecommerce"), built_before, without_them.result())


def test_an_erasure_waits_for_the_load_that_is_going_on(after: After) -> None:
    assert "waiting for another load of ecommerce.events to end" in after.said


def test_everybody_else_is_as_if_they_had_never_been(after: After) -> None:
    assert after.checksum == after.checksum_without_them


def test_nothing_of_them_is_left_in_the_database(after: After, shop: Shop) -> None:
    assert not numbers_in_database() & shop.canaries


def test_nothing_of_them_is_left_in_the_files(after: After, shop: Shop, warehouse: Path) -> None:
    assert files_naming(warehouse, shop.canaries) == []


def test_quarantine_holds_no_line_about_them(after: After, shop: Shop) -> None:
    from ingestion.keys import open_key
    from ingestion.quarantine import Seal

    opened = []
    with connect("steward") as connection:
        seal = Seal(open_key(connection, "quarantine", may_generate=False))
        for load_id, number, payload in connection.execute("select load_id, line_number, payload from quarantine.rows"):
            opened.append(seal.open(payload, load_id, number).split(b"\n", 1)[1])
    assert not [line for line in opened if shop.about_the_erased(line)]
    # and still all about the others
    assert sum(EMAIL.encode() in line for line in opened) == 6


def test_the_books_balance(after: After) -> None:
    assert accounts_do_not_balance() == []
    assert one("select sum(rows_suppressed) from audit.loads") > 0


def test_each_has_a_receipt_that_does_not_say_who(after: After, shop: Shop) -> None:
    receipts = rows_of("select rows_by_table::text, models_marked from audit.erasures")
    assert len(receipts) == ERASED
    assert "raw_ecommerce.events" in receipts[0][0]
    marked = Counter(version for _, versions in receipts for version in versions)
    assert marked["customer_segments v1.0.1"] == ERASED
    ((erased, refitted),) = rows_of(
        "select max(erased_user_count) filter (where model_version = 'v1.0.1'),"
        " max(erased_user_count) filter (where model_version = 'v1.0.2') from ml_ecommerce.customer_segments_runs"
    )
    assert (erased, refitted) == (ERASED, 0)
    listed = agora("rgpd", "receipts", "ecommerce")
    assert listed.count("v1.0.1") == ERASED
    assert not any(raw_id in listed + after.said for raw_id in shop.erased)


def test_the_suppression_list_alone_names_nobody(after: After, shop: Shop) -> None:
    entries = {bytes(entry) for (entry,) in rows_of("select suppression_id from audit.suppressions")}
    assert len(entries) == ERASED
    assert {len(entry) for entry in entries} == {32}
    assert one("select count(*) from audit.keys where domain = 'suppression'") == 1


def test_a_dump_holds_no_key_no_delivered_id_and_no_email(after: After, shop: Shop, warehouse: Path) -> None:
    dumped = dump(warehouse)
    quarantine_key = (warehouse / "keys" / "quarantine.key").read_text().strip()
    for key in (KEY, SUPPRESSION_KEY, quarantine_key):
        secret = bytes.fromhex(key)
        # as text, as Postgres writes bytea, and as it is
        for form in (key.encode(), key.upper().encode(), base64.b64encode(secret), secret):
            assert form not in dumped
            assert [str(path) for path, content in bytes_in_files(warehouse) if form in content] == (
                [str(warehouse / "keys" / "quarantine.key")] if form == quarantine_key.encode() else []
            )
    assert EMAIL.encode() not in dumped
    numbers = {int(number) for number in NUMBER.findall(dumped)}
    assert not {int(raw_id) for raw_id in shop.everybody} & numbers
    assert not shop.canaries & numbers
    # the search would see them: everybody else's pseudonyms are there
    assert {shop.user_ids[raw_id] for raw_id in shop.everybody} & numbers


def test_someone_with_dump_and_readers_password_learns_no_id(after: After, shop: Shop) -> None:
    """The attack that works on unkeyed hashes: hash every possible id and look it up."""
    held = {user_id for (user_id,) in rows_of("select user_id from ecommerce.dim_users", role="bi_reader")}
    entries = {bytes(entry) for (entry,) in rows_of("select suppression_id from audit.suppressions")}
    fingerprints = [text for pair in rows_of("select fingerprint, key_id from audit.keys") for text in pair]
    guesses = [b"", b"ecommerce", b"agora", *(text.encode() for text in fingerprints)]
    guesses += [bytes.fromhex(text) for text in fingerprints]
    for raw_id in shop.everybody:
        for text in (raw_id, f"ecommerce {raw_id}"):
            for guess in guesses:
                for digest in (
                    hmac.digest(guess, text.encode(), "sha256"),
                    hashlib.sha256(guess + text.encode()).digest(),
                ):
                    assert digest not in entries
                    assert int.from_bytes(digest[:8], "big", signed=True) not in held
    # with the key it works
    assert {shop.user_ids[raw_id] for raw_id in shop.everybody} >= held


# --- they stay gone ---------------------------------------------------------------------------------------------


def test_erasing_again_finds_nothing(after: After, shop: Shop) -> None:
    said = agora("rgpd", "erase", "ecommerce", stdin=shop.erased[0])
    assert "Nothing is held on this person: there is nothing to erase." in said


@pytest.mark.parametrize(
    ("key", "sentence"),
    [("", "The database was filled with key"), (bytes(32).hex(), "The key for suppression is not the one")],
)
def test_nothing_is_landed_without_the_suppression_key(after: After, shop: Shop, key: str, sentence: str) -> None:
    file = shop.folder / "all" / "2019-Oct.csv.gz"
    said = agora("load", "ecommerce.events", file, "--force", expect=2, AGORA_KEY_SUPPRESSION=key)
    assert sentence in said
    assert accounts_do_not_balance() == []


def test_replaying_all_sources_brings_nobody_back(after: After, shop: Shop, warehouse: Path) -> None:
    said = agora("load", "ecommerce.events", shop.folder / "all", "--force")
    assert said.count(" suppressed") == 3
    renamed = write(shop.folder / "renamed", "2019-Oct.again.csv.gz", shop.lines["2019-Oct.csv.gz"])
    agora("load", "ecommerce.events", renamed)
    for row in agora_sql("select load_id from audit.loads where status = 'loaded'"):
        agora("quarantine", "replay", row["load_id"])
    assert accounts_do_not_balance() == []
    assert one("select min(rows_suppressed) from audit.loads where status = 'loaded'") > 0
    agora("run", "ecommerce")
    assert agora("checksum", "ecommerce") == after.checksum_without_them
    assert not numbers_in_database() & shop.canaries
    assert files_naming(warehouse, shop.canaries) == []


def test_a_hopeless_file_is_refused_whoever_it_is_about(after: After, shop: Shop) -> None:
    broken = [line + b",more" for line in shop.lines["2019-Oct.csv.gz"] if shop.about_the_erased(line)]
    said = agora("load", "ecommerce.events", write(shop.folder / "broken", "2019-Oct.b.csv.gz", broken), expect=2)
    assert "no row of the file is good" in said


def test_a_file_of_erased_people_alone_lands_nothing_and_is_no_mistake(after: After, shop: Shop) -> None:
    theirs = [line for line in shop.lines["2019-Oct.csv.gz"] if shop.about_the_erased(line)]
    file = write(shop.folder / "theirs", "2019-Oct.theirs.csv.gz", theirs)
    said = agora("load", "ecommerce.events", file)
    assert f"{len(theirs):,} rows read, 0 landed, 0 quarantined, {len(theirs):,} suppressed" in said
