"""The shop's features computed by other means, for `benchmarks/ecommerce.py`: same files in, same totals per user out.

    python benchmarks/peers_ecommerce.py duckdb-stages|duckdb-query|polars|pandas FOLDER OUT.parquet

Each peer reads the csv.gz files of FOLDER, cleans, drops repeats, cuts sessions and totals up per delivered user_id,
and prints `{"seconds": …, "peak_mb": …}`, seconds without its own import. None pseudonymises, quarantines, keeps
history or tests anything: they are what a script would do.
"""

import json
import resource
import sys
import time
from pathlib import Path

THREADS = 2
CLEAN = """
    select
        event_time,
        date_trunc('minute', event_time) as event_at,
        cast(event_time as date) as event_date,
        case event_type when 'remove' then 'remove_from_cart' else event_type end as event_type,
        product_id,
        category_id,
        coalesce(nullif(lower(trim(category_code, ' \t\u00a0')), ''), 'unknown') as category_code,
        coalesce(nullif(lower(trim(brand, ' \t\u00a0')), ''), 'unknown') as brand,
        case when event_type in ('remove', 'remove_from_cart') then coalesce(price, 0) else price end as price,
        user_id,
        file_order,
        row_order
    from {raw}
    where
        not (category_id is null and nullif(trim(category_code, ' \t\u00a0'), '') is null)
        and not (price is null and event_type not in ('remove', 'remove_from_cart'))
        and coalesce(price, 0) >= 0
        and not (price = 0 and event_type = 'purchase')
"""
FIRST = """
    select distinct on (event_time, user_id, product_id, event_type) *
    from {clean}
    order by event_time, user_id, product_id, event_type, file_order, row_order
"""
TOTALS = """
    with gaps as (
        select
            *,
            date_diff('minute', lag(event_at) over (partition by user_id order by event_at), event_at) as gap
        from {events}
    ),
    numbered as (
        select
            *,
            gap is null or gap > 30 as is_start,
            count(*) filter (where gap is null or gap > 30)
                over (partition by user_id order by event_at) as session_number
        from gaps
    )
    select
        user_id,
        count(*) as event_count,
        count(*) filter (where event_type = 'view') as view_count,
        count(*) filter (where event_type = 'cart') as cart_count,
        count(*) filter (where event_type = 'remove_from_cart') as removal_count,
        count(*) filter (where event_type = 'purchase') as purchase_count,
        coalesce(sum(price) filter (where event_type = 'view'), 0) as viewed_value_eur,
        coalesce(sum(price) filter (where event_type = 'cart'), 0) as carted_value_eur,
        coalesce(sum(price) filter (where event_type = 'purchase'), 0) as monetary_eur,
        max(price) filter (where event_type = 'purchase') as max_purchase_price_eur,
        stddev_samp(cast(price as double)) as price_stddev_eur,
        count(distinct category_id) + count(distinct category_code) filter (where category_id is null)
            as category_count,
        count(distinct category_id) filter (where event_type = 'purchase')
        + count(distinct category_code) filter (where event_type = 'purchase' and category_id is null)
            as purchased_category_count,
        count(distinct brand) filter (where brand <> 'unknown') as brand_count,
        count(*) filter (where isodow(event_date) >= 6) as weekend_event_count,
        count(*) filter (where hour(event_at) >= 22 or hour(event_at) < 6) as night_event_count,
        max(session_number) as session_count,
        count(distinct session_number) filter (where event_type = 'purchase') as purchase_session_count,
        count(distinct event_date) filter (where is_start) as active_day_count,
        coalesce(cast(sum(gap) filter (where not is_start) as bigint), 0) as session_minutes
    from numbered
    group by user_id
"""
READ_ONE = """
    select
        strptime(event_time, '%Y-%m-%d %H:%M:%S UTC') as event_time,
        event_type, product_id, category_id, category_code, brand, price, user_id,
        {order} as file_order, row_number() over () as row_order
    from read_csv('{path}', header = true, columns = {{
        'event_time': 'varchar', 'event_type': 'varchar', 'product_id': 'bigint', 'category_id': 'bigint',
        'category_code': 'varchar', 'brand': 'varchar', 'price': 'decimal(18, 2)', 'user_id': 'bigint',
        'user_session': 'varchar'
    }})
"""


def duckdb_stages(files: list[Path], out: Path) -> float:
    """Every stage stored as a table of a database on disk, as a warehouse would."""
    import duckdb

    with duckdb.connect(str(out.with_suffix(".duckdb"))) as connection:
        connection.execute(f"set threads = {THREADS}")
        started = time.perf_counter()
        connection.execute("create table raw as " + _read_all(files))
        connection.execute("create table clean as " + CLEAN.format(raw="raw"))
        connection.execute("create table events as " + FIRST.format(clean="clean"))
        connection.execute("create table totals as " + TOTALS.format(events="events"))
        connection.execute("checkpoint")
        seconds = time.perf_counter() - started
        connection.execute(f"copy totals to '{out}' (format parquet)")
    return seconds


def duckdb_query(files: list[Path], out: Path) -> float:
    """One streaming query, nothing stored but its result."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"set threads = {THREADS}")
        connection.execute(f"set temp_directory = '{out.with_suffix('.tmp')}'")
        started = time.perf_counter()
        clean = CLEAN.format(raw=f"({_read_all(files)})")
        first = FIRST.format(clean=f"({clean})")
        totals = TOTALS.format(events=f"({first})")
        connection.execute(f"copy ({totals}) to '{out}' (format parquet)")
        return time.perf_counter() - started


def _read_all(files: list[Path]) -> str:
    return " union all ".join(
        f"({READ_ONE.format(order=order, path=path)})" for order, path in enumerate(sorted(files, key=_period))
    )


def _period(path: Path) -> str:
    from ingestion.ecommerce.source import period_of_file

    period = period_of_file(path.name)
    assert period is not None
    return period.text


def polars_query(files: list[Path], out: Path) -> float:
    """Lazy frames, collected once."""
    import polars as pl

    started = time.perf_counter()
    schema = {
        "event_time": pl.String,
        "event_type": pl.String,
        "product_id": pl.Int64,
        "category_id": pl.Int64,
        "category_code": pl.String,
        "brand": pl.String,
        "price": pl.Float64,
        "user_id": pl.Int64,
        "user_session": pl.String,
    }
    raw = pl.concat([pl.scan_csv(path, schema=schema) for path in sorted(files, key=_period)]).drop("user_session")

    def tidy(name: str) -> pl.Expr:
        text = pl.col(name).str.strip_chars(" \t\u00a0").str.to_lowercase()
        return pl.when(text == "").then(None).otherwise(text).alias(name)

    is_type = pl.col("event_type")
    kept = (
        raw.with_columns(
            pl.col("event_time").str.slice(0, 19).str.to_datetime("%Y-%m-%d %H:%M:%S"),
            is_type.replace("remove", "remove_from_cart"),
            tidy("category_code"),
            tidy("brand"),
            # cents: whole numbers add up exactly
            (pl.col("price") * 100).round().cast(pl.Int64).alias("cents"),
        )
        .with_columns(
            pl.when(is_type == "remove_from_cart")
            .then(pl.col("cents").fill_null(0))
            .otherwise(pl.col("cents"))
            .alias("cents")
        )
        .filter(
            ~(pl.col("category_id").is_null() & pl.col("category_code").is_null())
            & pl.col("cents").is_not_null()
            & (pl.col("cents") >= 0)
            & ~((pl.col("cents") == 0) & (is_type == "purchase"))
        )
        .unique(["event_time", "user_id", "product_id", "event_type"], keep="first", maintain_order=True)
        .with_columns(pl.col("event_time").dt.truncate("1m").alias("event_at"))
        .sort("user_id", "event_at")
        .with_columns((pl.col("event_at").diff().over("user_id").dt.total_minutes()).alias("gap"))
        .with_columns((pl.col("gap").is_null() | (pl.col("gap") > 30)).alias("is_start"))
        .with_columns(pl.col("is_start").cum_sum().over("user_id").alias("session_number"))
    )

    def of_type(name: str) -> pl.Expr:
        return is_type == name

    category = pl.coalesce(
        pl.col("category_id").cast(pl.String), pl.lit("code ") + pl.col("category_code").fill_null("unknown")
    )
    hour = pl.col("event_at").dt.hour()
    totals = kept.group_by("user_id").agg(
        pl.len().alias("event_count"),
        of_type("view").sum().alias("view_count"),
        of_type("cart").sum().alias("cart_count"),
        of_type("remove_from_cart").sum().alias("removal_count"),
        of_type("purchase").sum().alias("purchase_count"),
        (pl.col("cents").filter(of_type("view")).sum() / 100).alias("viewed_value_eur"),
        (pl.col("cents").filter(of_type("cart")).sum() / 100).alias("carted_value_eur"),
        (pl.col("cents").filter(of_type("purchase")).sum() / 100).alias("monetary_eur"),
        (pl.col("cents").filter(of_type("purchase")).max() / 100).alias("max_purchase_price_eur"),
        (pl.col("cents").std() / 100).alias("price_stddev_eur"),
        category.n_unique().alias("category_count"),
        category.filter(of_type("purchase")).n_unique().alias("purchased_category_count"),
        pl.col("brand").drop_nulls().n_unique().alias("brand_count"),
        (pl.col("event_at").dt.weekday() >= 6).sum().alias("weekend_event_count"),
        ((hour >= 22) | (hour < 6)).sum().alias("night_event_count"),
        pl.col("session_number").max().alias("session_count"),
        pl.col("session_number").filter(of_type("purchase")).n_unique().alias("purchase_session_count"),
        pl.col("event_at").filter(pl.col("is_start")).dt.date().n_unique().alias("active_day_count"),
        pl.col("gap").filter(~pl.col("is_start")).sum().alias("session_minutes"),
    )
    totals.collect().write_parquet(out)
    return time.perf_counter() - started


def pandas_script(files: list[Path], out: Path) -> float:
    """What a notebook would do."""
    import numpy as np
    import pandas as pd

    started = time.perf_counter()
    types = {"category_id": "Int64", "product_id": "int64", "user_id": "int64", "price": "float64"}
    columns = ["event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price", "user_id"]
    raw = pd.concat(
        [
            pd.read_csv(path, dtype=types, usecols=columns, keep_default_na=False, na_values=[""])
            for path in sorted(files, key=_period)
        ],
        ignore_index=True,
    )
    raw["event_time"] = pd.to_datetime(raw["event_time"].str.slice(0, 19), format="%Y-%m-%d %H:%M:%S")
    raw["event_type"] = raw["event_type"].replace("remove", "remove_from_cart")
    for name in ("category_code", "brand"):
        # few different texts: tidy each once
        codes, texts = pd.factorize(raw[name])
        tidy = np.array([*(str(text).strip(" \t\u00a0").lower() for text in texts), ""], dtype=object)
        raw[name] = tidy[codes]
    is_removal = raw["event_type"] == "remove_from_cart"
    raw["cents"] = (raw["price"].where(~is_removal, raw["price"].fillna(0)) * 100).round()
    kept = raw[
        ~(raw["category_id"].isna() & (raw["category_code"] == ""))
        & raw["cents"].notna()
        & (raw["cents"] >= 0)
        & ~((raw["cents"] == 0) & (raw["event_type"] == "purchase"))
    ].drop_duplicates(["event_time", "user_id", "product_id", "event_type"])
    del raw
    kept = kept.assign(event_at=kept["event_time"].dt.floor("min"), cents=kept["cents"].astype("int64"))
    kept = kept.sort_values(["user_id", "event_at"], kind="stable")
    gap = kept["event_at"].diff().where(kept["user_id"].eq(kept["user_id"].shift()))
    is_start = gap.isna() | (gap > pd.Timedelta(minutes=30))
    hour = kept["event_at"].dt.hour
    kept = kept.assign(
        session_number=is_start.groupby(kept["user_id"]).cumsum(),
        session_minutes=gap.where(~is_start).dt.total_seconds().fillna(0) // 60,
        start_date=kept["event_at"].dt.floor("D").where(is_start),
        category=kept["category_id"].astype("string").fillna("code " + kept["category_code"]),
        brand=kept["brand"].where(~kept["brand"].isin(["", "unknown"])),
        weekend_event_count=kept["event_at"].dt.dayofweek >= 5,
        night_event_count=(hour >= 22) | (hour < 6),
    )
    users = kept.groupby("user_id")
    totals = pd.DataFrame(
        {
            "event_count": users.size(),
            "price_stddev_eur": users["cents"].std() / 100,
            "category_count": users["category"].nunique(),
            "brand_count": users["brand"].nunique(),
            "weekend_event_count": users["weekend_event_count"].sum(),
            "night_event_count": users["night_event_count"].sum(),
            "session_count": users["session_number"].max(),
            "active_day_count": users["start_date"].nunique(),
            "session_minutes": users["session_minutes"].sum().astype("int64"),
        }
    )
    names = {"view": "view", "cart": "cart", "remove_from_cart": "removal", "purchase": "purchase"}
    for event_type, name in names.items():
        totals[f"{name}_count"] = kept[kept["event_type"] == event_type].groupby("user_id").size()
    for event_type, name in {"view": "viewed_value", "cart": "carted_value", "purchase": "monetary"}.items():
        totals[f"{name}_eur"] = kept[kept["event_type"] == event_type].groupby("user_id")["cents"].sum() / 100
    bought = kept[kept["event_type"] == "purchase"].groupby("user_id")
    totals["max_purchase_price_eur"] = bought["cents"].max() / 100
    totals["purchased_category_count"] = bought["category"].nunique()
    totals["purchase_session_count"] = bought["session_number"].nunique()
    nullable = ["max_purchase_price_eur", "price_stddev_eur"]
    others = [name for name in totals.columns if name not in nullable]
    totals[others] = totals[others].fillna(0)
    seconds = time.perf_counter() - started
    import polars as pl

    pl.from_pandas(totals.reset_index()).write_parquet(out)
    return seconds


PEERS = {
    "duckdb-stages": duckdb_stages,
    "duckdb-query": duckdb_query,
    "polars": polars_query,
    "pandas": pandas_script,
}


if __name__ == "__main__":
    name, folder, target = sys.argv[1:]
    for module in ("polars", "pandas", "duckdb"):
        __import__(module)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    elapsed = PEERS[name](list(Path(folder).glob("*.csv.gz")), Path(target))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": round(elapsed, 2), "peak_mb": round(peak_mb), "imports_mb": round(before / 1024)}))
