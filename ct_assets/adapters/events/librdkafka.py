"""librdkafka's C functions for whole batches, called in the copy that confluent-kafka has loaded.

What goes here: finding that copy and the client behind a consumer object, the five functions, and reading many structs in
one numpy operation. What does not: what is done with a batch (``kafka_batches``).

Everything is checked before it is trusted: the version of confluent-kafka whose object layout this was written for, the
name of the client, and, for every batch, the two private fields (timestamp and its type) against the public functions.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from confluent_kafka import Consumer

TESTED = "2.16."  # of confluent-kafka: where its object holds the client, and librdkafka's private fields
_CLIENT_AT = 16  # behind PyObject_HEAD
# rd_kafka_message_t, in words of 8 bytes: err (4 bytes), topic, partition (4), payload, len, key, key_len, offset, private;
# behind it, in the struct that holds it: two links, flags (4) and timestamp type (4), timestamp.
ERROR, PARTITION, PAYLOAD, LENGTH, OFFSET, KIND, TIMESTAMP = 0, 2, 3, 4, 7, 11, 12
APPEND_TIME = 2  # RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME


class Unsupported(Exception):
    """This build cannot be read in batches; the ordinary consumer can."""


class _AllMemory:
    """This process's memory as one array of words; only addresses that librdkafka handed out are ever touched."""

    __array_interface__ = {"data": (8, True), "shape": (1 << 59,), "typestr": "<i8", "version": 3}  # noqa: RUF012


class Library:
    """The C functions of the librdkafka that is loaded into this process."""

    def __init__(self) -> None:
        """Raises :class:`Unsupported` on any version or platform that this was not written for."""
        import confluent_kafka

        if not str(confluent_kafka.__version__).startswith(TESTED) or ctypes.sizeof(ctypes.c_void_p) != 8:
            raise Unsupported(f"confluent-kafka {confluent_kafka.__version__}, tested is {TESTED}x")
        path = _loaded("librdkafka")
        waits, quick = (
            ctypes.CDLL(path),
            ctypes.PyDLL(path),
        )  # PyDLL keeps the interpreter's lock: for calls of nanoseconds
        pointer, number = ctypes.c_void_p, ctypes.c_int
        self.name = _declare(quick, "rd_kafka_name", ctypes.c_char_p, pointer)
        self.queue_new = _declare(quick, "rd_kafka_queue_new", pointer, pointer)
        self.queue_destroy = _declare(quick, "rd_kafka_queue_destroy", None, pointer)
        self.queue_of = _declare(
            waits, "rd_kafka_queue_get_partition", pointer, pointer, ctypes.c_char_p, ctypes.c_int32
        )
        self.forward = _declare(waits, "rd_kafka_queue_forward", None, pointer, pointer)
        self.consume = _declare(
            waits, "rd_kafka_consume_batch_queue", ctypes.c_ssize_t, pointer, number, pointer, ctypes.c_size_t
        )
        self.destroy = _declare(quick, "rd_kafka_message_destroy", None, pointer)
        self.timestamp = _declare(quick, "rd_kafka_message_timestamp", ctypes.c_int64, pointer, pointer)
        self.epoch = _declare(quick, "rd_kafka_message_leader_epoch", ctypes.c_int32, pointer)
        self._memory = np.asarray(_AllMemory())

    def words(self, addresses: np.ndarray, field: int) -> np.ndarray:
        """The 8-byte word ``field`` of every struct at ``addresses`` (int64, multiples of 8)."""
        return self._memory.take((addresses >> 3) + (field - 1))

    def client_of(self, consumer: Consumer, client_id: str) -> int:
        """Address of the ``rd_kafka_t`` behind ``consumer``. Raises :class:`Unsupported` unless it answers to its name."""
        at = ctypes.c_int64.from_address(id(consumer) + _CLIENT_AT).value
        if at % 8 or not _mapped(at) or not self.name(at).startswith(f"{client_id}#consumer-".encode()):
            raise Unsupported("the client is not where it was expected in the consumer object")
        return at

    def public_time(self, message: int) -> tuple[int, int]:
        """Timestamp type and timestamp of one message, as the public function gives them."""
        kind = ctypes.c_int(0)
        stamp = self.timestamp(message, ctypes.addressof(kind))
        return kind.value, stamp


def _declare(library: Any, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


def _loaded(name: str) -> str:
    """Path of the library that this process has loaded already."""
    try:
        with open("/proc/self/maps") as maps:
            return next(line.split()[-1] for line in maps if name in line)
    except (OSError, StopIteration) as error:
        raise Unsupported(f"no loaded {name} to be seen") from error


def _mapped(address: int) -> bool:
    with open("/proc/self/maps") as maps:
        ranges = (line.split()[0].split("-") for line in maps)
        return any(int(low, 16) <= address < int(high, 16) for low, high in ranges)
