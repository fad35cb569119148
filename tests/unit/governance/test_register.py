"""The processing register: every personal table under its purpose, nothing invented about the controller."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from governance.classification import ClassifiedTable
from governance.register import TO_FILL_IN, Controller, Format, activities, controller_from_environment, register

NOON = datetime(2020, 3, 1, 12, 0, tzinfo=UTC)
USERS = ClassifiedTable(
    schema="ecommerce",
    name="dim_users",
    domain="ecommerce",
    holds="personal",
    subject_key="user_id",
    data_subjects="customers",
    data_categories="purchases",
    purpose="shop analytics",
    legal_basis="legitimate interests",
    retention="24 months",
    columns={"user_id": "pseudonym", "spent_eur": None, "view_count": None},
    description="One row per user | or so.",
    made_by="dbt",
)
SEGMENTS = replace(USERS, name="customer_segments", purpose="segmentation", columns={"user_id": "pseudonym"})
EVENTS = replace(USERS, schema="raw_ecommerce", name="events", retention="90 days", made_by="agora")
ROWS = replace(
    USERS,
    schema="quarantine",
    name="rows",
    domain=None,
    subject_key=None,
    purpose="repair",
    columns={"payload": "encrypted"},
)
PRODUCTS = ClassifiedTable(
    schema="ecommerce",
    name="dim_products",
    domain="ecommerce",
    holds="reference",
    subject_key=None,
    data_subjects=None,
    data_categories=None,
    purpose=None,
    legal_basis=None,
    retention=None,
    columns={"product_id": None},
    description="One row per product.",
    made_by="dbt",
)
TABLES = [USERS, SEGMENTS, PRODUCTS, ROWS, EVENTS]
READERS = {
    ("ecommerce", "dim_users"): ["bi_reader", "transformer"],
    ("ecommerce", "customer_segments"): ["analyst"],
    ("ecommerce", "dim_products"): ["bi_reader"],
    ("quarantine", "rows"): [],
}


def written(controller: Controller = Controller(), output: Format = "markdown") -> str:  # noqa: B008 frozen
    return register(TABLES, READERS, controller, NOON, output)


def section(title: str) -> str:
    """What stands between the heading that contains `title` and the next one."""
    parts = re.split(r"^#+ (.*)$", written(), flags=re.MULTILINE)
    (text,) = [text for heading, text in zip(parts[1::2], parts[2::2], strict=True) if title in heading]
    return text


def row_of(table: str, text: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| `{table}` |")]
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[2:-1]]


def test_personal_tables_are_grouped_by_domain_and_purpose() -> None:
    assert [(activity.title, [str(table) for table in activity.tables]) for activity in activities(TABLES)] == [
        ("all domains: repair", ["quarantine.rows"]),
        ("ecommerce: segmentation", ["ecommerce.customer_segments"]),
        ("ecommerce: shop analytics", ["ecommerce.dim_users", "raw_ecommerce.events"]),
    ]


def test_an_activity_says_all_that_article_30_asks_for() -> None:
    text = section("ecommerce: shop analytics")
    assert "**Purpose:** shop analytics" in text
    assert "**Legal basis:** legitimate interests\n" in text
    assert "**Data subjects:** customers\n" in text
    assert "**Recipients:** `bi_reader` (BI tools" in text
    assert row_of("ecommerce.dim_users", text) == [
        r"One row per user \| or so.",
        "`user_id`",
        "`user_id` (keyed pseudonym)",
        "2",
        "24 months",
        "`bi_reader`, `transformer`",
    ]
    assert row_of("raw_ecommerce.events", text)[-2:] == ["90 days", "not built yet"]
    assert "Transfers to third countries:** None by Agora" in section("For all activities")
    assert "HMAC-SHA-256" in section("Security measures")


def test_recipients_are_those_the_database_names_whoever_they_are() -> None:
    assert "**Recipients:** `analyst` (a role that is not of Agora)\n" in section("segmentation")
    assert "**Recipients:** no role\n" in section("repair")
    cells = row_of("quarantine.rows", section("repair"))
    assert cells[1:3] == ["decrypting it", "`payload` (encrypted lines as delivered)"]
    assert cells[-1] == "the owner alone"


def test_tables_without_personal_data_are_listed_and_no_others() -> None:
    text = section("Tables without personal data")
    assert row_of("ecommerce.dim_products", text) == ["reference", "One row per product."]
    assert "dim_users" not in text


def test_a_register_that_is_written_too_early_says_so() -> None:
    assert "Some tables are not built yet" in written()
    everyone = {(table.schema, table.name): ["transformer"] for table in TABLES}
    assert "not built yet" not in register(TABLES, everyone, Controller(), NOON, "markdown")


def test_nothing_is_invented_about_the_controller() -> None:
    assert written().count(f"*{TO_FILL_IN}*") == 5
    text = written(Controller(name="Example Shop SAS", data_protection_officer="Ada Example"))
    assert "| controller | Example Shop SAS |" in text
    assert "| data protection officer | Ada Example |" in text
    assert text.count(f"*{TO_FILL_IN}*") == 3


def test_the_controller_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert controller_from_environment() == Controller()
    monkeypatch.setenv("AGORA_CONTROLLER", "Example Shop SAS")
    monkeypatch.setenv("AGORA_CONTROLLER_CONTACT", "")
    monkeypatch.setenv("AGORA_DATA_PROTECTION_OFFICER", "Ada Example")
    assert controller_from_environment() == Controller(name="Example Shop SAS", data_protection_officer="Ada Example")


def test_json_says_the_same_with_every_column() -> None:
    found: dict[str, Any] = json.loads(written(Controller(name="Example Shop SAS"), "json"))
    assert found["controller"]["name"] == "Example Shop SAS"
    assert found["controller"]["contact"] is None
    assert found["written_at"] == "2020-03-01T12:00:00+00:00"
    analytics = found["activities"][2]
    assert (analytics["domain"], analytics["purpose"]) == ("ecommerce", "shop analytics")
    assert analytics["tables"][0]["columns"] == dict(USERS.columns)
    assert analytics["tables"][0]["read_by"] == ["bi_reader", "transformer"]
    assert analytics["tables"][1]["read_by"] is None
    assert [table["table"] for table in found["tables_without_personal_data"]] == ["dim_products"]
    assert found["security_measures"]
