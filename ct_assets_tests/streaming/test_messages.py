"""A batch of messages: taken, cut and joined batches hold the same payloads, whatever lies between them.

What goes here: the layout. What does not: sources that fill it (``adapters/events``), decoders that read it.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ct_assets.streaming.messages import Messages
from ct_assets_tests.streaming.random_streams import apart

VALUES = st.lists(st.one_of(st.none(), st.binary(max_size=40)), max_size=40)


def _payloads(messages: Messages) -> list[bytes | None]:
    return [messages.payload(i) for i in range(len(messages))]


@settings(deadline=None)
@given(VALUES, st.sampled_from([b"\n", b"\x00", b'"\\\n', b"\xff" * 9]), st.data())
def test_taken_messages_are_packed_and_the_same(
    values: list[bytes | None], between: bytes, data: st.DataObject
) -> None:
    messages = apart(values, between)
    assert _payloads(messages) == values
    where = data.draw(st.lists(st.sampled_from(range(len(values))), max_size=60) if values else st.just([]))
    for order in (where, sorted(set(where)), list(range(len(values)))):
        taken = messages.take(order)
        assert taken.packed
        assert _payloads(taken) == [values[i] for i in order]
        assert bytes(taken.data) == b"".join(values[i] + b"\n" for i in order if values[i] is not None)  # type: ignore[operator]
        assert taken.offset.tolist() == order
        assert taken.append_time.tolist() == [7 * i for i in order]
        assert taken.partition.tolist() == [i % 3 for i in order]


@settings(deadline=None)
@given(VALUES, VALUES, st.integers(0, 40), st.integers(0, 40))
def test_cut_and_joined(first: list[bytes | None], second: list[bytes | None], low: int, high: int) -> None:
    messages = apart(first, b"##")
    low, high = sorted((min(low, len(first)), min(high, len(first))))
    cut = messages.slice(low, high)
    assert _payloads(cut) == first[low:high]
    joined = Messages.concat([cut, Messages.from_values(second)])
    assert _payloads(joined) == first[low:high] + second
    assert _payloads(joined.take(range(len(joined)))) == first[low:high] + second


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=30))
def test_partitions_and_the_last_of_each(partition: list[int]) -> None:
    messages = Messages.from_values([b"x"] * len(partition), partition)
    assert messages.partitions() == sorted(set(partition))
    assert messages.last_of_each() == {p: max(i for i, q in enumerate(partition) if q == p) for p in set(partition)}
