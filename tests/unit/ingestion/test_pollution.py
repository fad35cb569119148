"""The declared-dialect reader against polluted files whose truth is known."""

import pytest
from pollution import DAMAGES, HEADER, Loaded, Polluted, Score, clean_rows, pollutions, read, score, simple_score

FILES = pollutions()


def test_the_simple_score_is_at_least_9_9() -> None:
    assert len(FILES) > 150
    assert simple_score([score(file, read(file)[0]) for file in FILES]) >= 9.9


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_fault_costs_the_rows_it_hits_and_nothing_is_read_wrongly(file: Polluted) -> None:
    loaded, rejected = read(file)
    assert loaded.header == file.header
    unhurt = [row for place, row in enumerate(file.rows) if place not in file.damaged]
    # in the file's order, each as it was: no row is read wrongly, made up or lost but those that were hit
    assert [row for row in loaded.rows if row in unhurt][: len(unhurt)] == unhurt
    assert score(file, loaded).wrong_rows == 0
    if file.kind not in ("footer", "second table"):
        assert len(loaded.rows) + len({line.line_number for line in rejected}) >= len(file.rows) - 1
        assert bool(rejected) <= bool(file.damaged)


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 17])
def test_files_are_read_the_same_wherever_blocks_end(block_bytes: int) -> None:
    for file in FILES[::7]:
        if file.dialect.encoding == "utf-8":
            assert read(file, block_bytes) == read(file)


def test_a_damage_hits_one_line_at_most() -> None:
    clean = FILES[0].content.split(b"\r\n")
    assert len(set(clean_rows())) == len(FILES[0].rows)
    damages = [file for file in FILES if file.name.startswith(tuple(DAMAGES))]
    changed = []
    for file in damages:
        lines = file.content.split(b"\r\n")
        changed += [len([place for place, line in enumerate(lines) if line not in clean])]
    assert max(changed) <= 2, "a row with a line break is two physical lines"
    # some cells are empty or not quoted, so that nothing can be taken from them
    assert changed.count(0) < len(damages) / 10


def test_the_measures() -> None:
    file = Polluted("kind", "name", b"", FILES[0].dialect, ("a", "b"), (("1", "2"), ("3", "4")))
    assert score(file, None) == Score()
    assert score(file, Loaded(("a", "b"), [("3", "4"), ("1", "2")])).total == 10
    half = score(file, Loaded(("a",), [("1", "2"), ("3", "5"), ("3", "5"), ("9", "9")]))
    assert half.header == (1, 0.5, pytest.approx(2 / 3))
    assert half.records == (0.25, 0.5, pytest.approx(1 / 3))
    assert half.cells == (3 / 8, 3 / 4, 0.5)
    assert half.wrong_rows == 3
    assert score(file, Loaded((), [])).total == 1
    assert FILES[0].header == HEADER
