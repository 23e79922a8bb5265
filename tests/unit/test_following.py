"""Following growing output: no text is shown twice, and gaps are marked."""

from __future__ import annotations

import random
import re

import pytest

from dbtaskqueue._formats.output import FIRST, LAST, Output, OutputFollower

LEFT_OUT = re.compile(r"\n\[… (\d+) bytes left out …\]\n")


def follow(chunks: list[bytes], reads: random.Random) -> list[str]:
    """Write the chunks, read now and then, and return what each read showed."""
    output, follower, shown = Output(), OutputFollower(), []
    for chunk in chunks:
        output.write(chunk)
        if reads.random() < 0.4:
            shown.append(follower.new_text(output.text(), ended=False))
    return [*shown, follower.new_text(output.text())]


def assert_in_order(shown: str, written: bytes) -> None:
    """Check that each part follows the previous part and the bytes left out."""
    position = 0
    parts = LEFT_OUT.split(shown)
    for part, left_out in zip(parts[::2], [*parts[1::2], "0"], strict=True):
        data = part.encode()
        assert data == written[position : position + len(data)]
        position += len(data) + int(left_out)
    assert position == len(written)


@pytest.mark.parametrize("seed", range(24))
def test_no_text_is_shown_twice_and_gaps_are_marked(seed: int) -> None:
    dice = random.Random(seed)
    longest = dice.choice((50, 3000, 40_000, 200_000))
    chunks = [dice.randbytes(dice.randrange(1, longest)).hex().encode() for _ in range(12)]
    if seed % 4 == 0:  # all bytes are equal, so only the count gives the position
        chunks = [b"x" * len(chunk) for chunk in chunks]
    assert_in_order("".join(follow(chunks, dice)), b"".join(chunks))


@pytest.mark.parametrize("seed", range(10))
def test_characters_of_several_bytes(seed: int) -> None:
    dice = random.Random(seed)
    data = "".join(dice.choices("aé你😀\n", k=60_000)).encode()
    chunks, rest = [], data
    while rest:
        size = dice.randrange(1, 9000)
        chunks.append(rest[:size])  # the cut may be in the middle of a character
        rest = rest[size:]
    shown = "".join(follow(chunks, dice))
    assert shown.count("\ufffd") <= 4 * shown.count("left out"), "only after a cut"
    parts = LEFT_OUT.split(shown)
    assert "".join(parts[::2]).replace("\ufffd", "").strip("\n") != ""
    for part in parts[::2]:
        assert part.strip("\ufffd") in data.decode()
    assert sum(len(part.encode()) for part in parts[::2]) + sum(map(int, parts[1::2])) == pytest.approx(
        len(data), abs=20
    )


def test_bytes_that_are_not_utf_8() -> None:
    dice = random.Random(1)
    chunks = [dice.randbytes(5000) for _ in range(60)]
    shown = "".join(follow(chunks, dice))
    assert shown.startswith(chunks[0].decode("utf-8", "replace").replace("\x00", "\ufffd")[:1000])
    assert shown.endswith(chunks[-1].decode("utf-8", "replace").replace("\x00", "\ufffd")[-1000:])


def test_incomplete_characters_and_line_ends_wait() -> None:
    follower = OutputFollower()
    assert follower.new_text("50 %\r", ended=False) == "50 %"
    assert follower.new_text("50 %\r\n\ufffd", ended=False) == "\r\n"
    assert follower.new_text("50 %\r\né", ended=False) == "é"
    assert follower.new_text("50 %\r\né\r") == "\r"


def test_new_text_while_the_middle_is_cut() -> None:
    output, follower = Output(), OutputFollower()
    output.write(b"f" * FIRST + b"1" * LAST)
    assert follower.new_text(output.text(), ended=False) == output.text()
    output.write(b"2" * 100)
    assert follower.new_text(output.text(), ended=False) == "2" * 100, "cut, but all of it was shown before"
    output.write(b"3" * (LAST + 7))
    assert follower.new_text(output.text(), ended=False) == "\n[… 7 bytes left out …]\n" + "3" * LAST
    assert follower.new_text(output.text()) == ""


def test_a_task_may_print_a_line_like_that_of_a_gap() -> None:
    own = "\n[… 5 bytes left out …]\n"
    output, follower = Output(), OutputFollower()
    output.write(own.encode() * 3)
    assert follower.new_text(output.text()) == own * 3
    output.write(b"x" * LAST * 2 + own.encode())
    last = follower.new_text(output.text())
    assert LEFT_OUT.findall(last)[-1] == "5"
    assert last.endswith("x" + own)
    assert follower.new_text(output.text()) == ""
