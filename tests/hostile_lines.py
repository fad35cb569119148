"""Lines of the shop's event log as nobody wants them, for tests of the door: from plainly good to broken on purpose."""

from hypothesis import strategies as st

SESSION = "72d76fde-8bb3-4e00-8c23-a032dfed738c"
GOOD = {
    "event_time": "2019-10-01 00:00:00 UTC",
    "event_type": "view",
    "product_id": "44600062",
    "category_id": "2103807459595387724",
    "category_code": "appliances.kitchen",
    "brand": "shiseido",
    "price": "35.79",
    "user_id": "541312140",
    "user_session": SESSION,
}


def line(**changes: str) -> bytes:
    """A good line, without its end, but for what is changed."""
    return ",".join({**GOOD, **changes}.values()).encode()


digits = st.text("0123456789", min_size=1, max_size=21)
ODD_VALUES = [
    "", " ", "\\.", "\\N", '"', '""', '"a,b"', "a\rb", "\r", "\0", "NULL", "NaN", "Infinity", "1e5", "5.41E+08",
    "2,1E+18", "+5", "-5", "-", "007", "١٢", "é", "\u2028", "\x85", "\x7f", "\t", ";", "|", "-" * 36, "0x1F",
    "1_0", "a@b", "a@example.org", "a%40example.org", "100%", "@", "x" * 255, "x" * 256, " 5", "5 ", "7\t",
    SESSION.upper(), SESSION.replace("-", ""), SESSION + " ", SESSION[:-1] + "-", "-" + SESSION[1:], "24:00:00",
    "2019-10-01 24:00:00 UTC", "2019-02-30 00:00:00 UTC", "2019-10-32 00:00:00 UTC", "2019-10-01 23:59:60 UTC",
    "2019-10-01 00:00:00", "2019-10-01 00:00:00 UTC ", "2019-10-01 00:00:00 utc", "9" * 18, "9" * 19, "8" * 19,
    "0" * 19, "0" * 18 + "7", "0" * 19 + "7", str(2**63 - 1), str(2**63), "remove_from_car", "viewer",
]  # fmt: skip
odd_text = st.one_of(st.sampled_from(ODD_VALUES), digits, st.text(max_size=12))
ODD_PRICES = [
    "", "0", "0.00", "-0", "-0.00", "1.50", "1.5", "007.10", "10000", "9999.9999", "10000.00010", "100000000",
    "0.0001", "0.00001", "9" * 18 + "." + "9" * 18, "-" + "1" * 17 + "." + "1" * 17, "0" * 18 + "." + "0" * 18,
    "9" * 19, "1." + "1" * 19, "1.", ".5", "+1", "--1", "1.1.1", "1 ",
]  # fmt: skip
prices = st.one_of(
    st.decimals(-10, 10, places=2).map(str),
    st.sampled_from(ODD_PRICES),
    st.tuples(digits, digits).map(".".join),
    digits,
)
days = st.integers(0, 33).map("{:02}".format)
clock = st.tuples(st.integers(0, 25), st.integers(0, 61), st.integers(0, 61)).map(
    lambda parts: "{:02}:{:02}:{:02}".format(*parts)
)
plausible = {
    "event_time": st.tuples(st.sampled_from(["2019-10", "2019-10", "2019-11", "2019-02"]), days, clock).map(
        lambda parts: "{}-{} {} UTC".format(*parts)
    ),
    "event_type": st.sampled_from(["view", "cart", "remove", "remove_from_cart", "purchase", "View", ""]),
    "product_id": digits,
    "category_id": st.one_of(digits, st.just("")),
    "category_code": st.text("abc. ", max_size=8),
    "brand": st.text("abé \\.'", max_size=8),
    "price": prices,
    # few people with many lines
    "user_id": st.one_of(st.integers(0, 30).map(str), digits),
    "user_session": st.uuids().map(str),
}


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Lines that are mostly right, with up to two odd values, sometimes cut or joined."""
    fields = {name: draw(values) for name, values in plausible.items()}
    # most lines good enough to pass
    if draw(st.booleans()):
        fields["event_time"] = f"2019-10-{draw(st.integers(1, 31)):02} 12:34:56 UTC"
        fields["event_type"] = draw(st.sampled_from(["view", "cart", "remove_from_cart"]))
    for name in draw(st.lists(st.sampled_from(list(fields)), max_size=2)):
        fields[name] = draw(odd_text)
    made = ",".join(fields.values()).encode("utf-8", "surrogatepass").replace(b"\n", b"")
    cut = draw(st.sampled_from([None, None, None, None, None, None, 1, -1, -3, 40]))
    return made[:cut] + draw(st.sampled_from([b"", b"", b"", b"", b"", b",", b"\xff", b" "]))


def in_blocks(text: bytes, block_bytes: int) -> list[tuple[bytes, int]]:
    """A text as the spool gives it: blocks, with the bytes done."""
    return [
        (text[start : start + block_bytes], min(start + block_bytes, len(text)))
        for start in range(0, len(text), block_bytes)
    ]
