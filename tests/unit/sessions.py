"""What a job may send, right and wrong: requests, requests with values changed, and the known ways around the filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hypothesis import strategies as st

from tests.unit.protocol import (
    ADD_MULTIPLE,
    ADD_NAR,
    ADD_TO_STORE,
    PASSED,
    PRETENDED,
    QUERY_REALISATION,
    REFUSED,
    SET_OPTIONS,
    UNKNOWN,
    VALID_PATH,
    Request,
    frames,
    number,
    text,
    texts,
)

STORE: Final = "/nix/store"
# The request that a job smuggles behind another one: roots of the whole host, which no job is told.
SMUGGLED: Final = 14
INTERESTING: Final = (
    0,
    1,
    2,
    3,
    7,
    8,
    14,
    47,
    255,
    256,
    4096,
    2**16,
    2**20,
    2**29,
    2**31,
    2**32 - 1,
    2**32,
    2**63,
    2**64 - 1,
)

INFO: Final = b"".join(kind.good[0][0] for kind in next(r for r in PASSED if r.code == ADD_NAR).fields[:-2])

# The ways that were found in the first filter: the daemon errs, keeps the connection, and takes what follows for requests.
# A frame of 13 bytes is then a request without fields, SyncWithGC; two lengths that cannot be read end the drain.
BYPASSES: Final[Mapping[str, bytes]] = {
    "a method that Nix does not know": number(ADD_TO_STORE)
    + text("x")
    + text("fixed:nonsense")
    + texts()
    + number(0)
    + frames(number(SMUGGLED) + bytes(5)),
    "a frame of AddToStore that is too long": number(ADD_TO_STORE)
    + text("x")
    + text("fixed:sha256")
    + texts()
    + number(0)
    + number(2**32) * 2
    + number(SMUGGLED),
    "a frame of AddMultipleToStore that is too long": number(ADD_MULTIPLE)
    + number(0) * 2
    + number(2**32) * 2
    + number(SMUGGLED),
    # Refused for its signature before any frame is read: one length ends the drain.
    "a frame of AddToStoreNar that is too long": number(ADD_NAR)
    + INFO
    + number(0) * 2
    + number(2**32)
    + number(SMUGGLED),
    "a method of a feature that is off": number(ADD_TO_STORE)
    + text("x")
    + text("fixed:git:sha1")
    + texts()
    + number(0)
    + frames(number(SMUGGLED) + bytes(5)),
    "a realisation with no name": number(QUERY_REALISATION) + text(b"") + number(SMUGGLED),
    "a number of which a daemon reads the half": number(VALID_PATH + 2**32) + number(SMUGGLED),
}


def whole(request: Request) -> st.SearchStrategy[bytes]:
    """One request as a client sends it, with contents in frames of any length."""
    heads = st.sampled_from([sent for sent, _ in request.good()])
    if request.contents is None:
        return heads
    contents = st.sampled_from([sent for sent, _ in request.contents.good if len(sent) < 100_000])
    return st.builds(
        lambda head, data, size: head + framed(data, size), heads, contents, st.sampled_from((1, 7, 4096, 1 << 20))
    )


def framed(data: bytes, size: int) -> bytes:
    size = max(size, len(data) // 500)
    return frames(*(data[at : at + size] for at in range(0, len(data), size)))


REQUESTS: Final = st.one_of([whole(request) for request in (*PASSED, *REFUSED, *PRETENDED)])


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A request with one word of eight bytes changed, taken out or put in, or cut short."""
    data = draw(REQUESTS)
    at = 8 * draw(st.integers(0, len(data) // 8))
    word = draw(st.sampled_from([number(value) for value in INTERESTING]))
    match draw(st.sampled_from(("change", "insert", "remove", "cut", "flip"))):
        case "change":
            return data[:at] + word + data[at + 8 :]
        case "insert":
            return data[:at] + word + data[at:]
        case "remove":
            return data[:at] + data[at + 8 :]
        case "cut":
            return data[:at]
        case _:
            at = draw(st.integers(0, max(0, len(data) - 1)))
            return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :] if data else data


SESSIONS: Final = st.lists(
    st.one_of(
        REQUESTS,
        REQUESTS,
        changed(),
        st.sampled_from(list(BYPASSES.values())),
        st.sampled_from([number(code) for code in UNKNOWN]),
        st.just(number(SET_OPTIONS) + b"".join(map(number, (0, 0, 0, 7, 1, 0, 1, 7, 0, 0, 0, 0))) + number(0)),
    ),
    min_size=1,
    max_size=4,
).map(lambda parts: [*parts, number(VALID_PATH) + text(f"{STORE}/{'0' * 32}-last")])
