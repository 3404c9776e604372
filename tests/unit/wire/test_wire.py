"""Messages ⇄ frames, objects ⇄ payloads, functions ⇄ content."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import pkgutil
import re
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engineroom import _version, messages
from engineroom.errors import ProtocolError, SerializationError
from engineroom.ids import digest_of
from engineroom.messages import Function, Hello, TaskDone, TaskSpec
from engineroom.on_engine import engine_calls
from engineroom.wire import frames, functions, payload
from engineroom.wire.functions import FunctionCache, load_function

NIGHTLY = bool(os.environ.get("ENGINEROOM_NIGHTLY"))
GOLDEN = Path(__file__).parents[2] / "golden" / "wire.json"

# -------------------------------------------------------------------------------------------- the contract

DIRECTIONS = {
    name: getattr(messages, name)
    for name in ("FromClient", "ToClient", "FromEngine", "ToEngine", "FromNanny", "ToNanny")
}


def _in_words(kind: Any) -> str:
    """A type, wherever it is defined: that is not part of the contract."""
    return re.sub(r"\bengineroom\.(\w+\.)*", "", str(kind)).replace("<class '", "").replace("'>", "")


def contract() -> dict[str, Any]:
    """All that travels, as data: what each direction may carry, and the fields of each type in order."""
    types: dict[str, Any] = {}

    def describe(kind: type[msgspec.Struct]) -> None:
        config = kind.__struct_config__
        types[kind.__name__] = {
            "tag": config.tag,
            "as": "array" if config.array_like else "map",
            "fields": [
                f"{field.encode_name}: {_in_words(field.type)}" + ("" if field.required else " = …")
                for field in msgspec.structs.fields(kind)
            ],
        }

    for _, kind in sorted(vars(messages).items()):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            describe(kind)
    carries = {name: sorted(kind.__name__ for kind in union.__args__) for name, union in DIRECTIONS.items()}
    return {"protocol_version": _version.PROTOCOL_VERSION, "directions": carries, "types": types}


def test_the_protocol_has_not_changed_unnoticed():
    """If this fails, and the change is meant: raise `PROTOCOL_VERSION` in _version.py once per release that has a
    peer in the field, then run `python tests/unit/wire/test_wire.py` to write tests/golden/wire.json anew.
    """
    assert contract() == json.loads(GOLDEN.read_text()), test_the_protocol_has_not_changed_unnoticed.__doc__


def test_the_package_names_all_its_types():
    modules = [
        importlib.import_module(f"{messages.__name__}.{m.name}") for m in pkgutil.iter_modules(messages.__path__)
    ]
    defined = {name for m in modules for name, kind in vars(m).items() if getattr(kind, "__module__", "") == m.__name__}
    assert defined | set(DIRECTIONS) == set(messages.__all__)


def test_no_two_messages_of_a_direction_share_a_tag():
    for union in DIRECTIONS.values():
        tags = [kind.__struct_config__.tag for kind in union.__args__]
        assert len(tags) == len(set(tags))


# -------------------------------------------------------------------------------------------- messages

DECODERS = [
    frames.decode_from_unknown,
    frames.decode_from_client,
    frames.decode_to_client,
    frames.decode_from_engine,
    frames.decode_to_engine,
    frames.decode_from_nanny,
    frames.decode_to_nanny,
]

SPEC = TaskSpec("t", b"f" * 16, b"payload", 1.5, frames=(0, 2), options=messages.TaskOptions(retries=2, targets=(1, 3)))
SAMPLES = [
    (frames.decode_from_unknown, Hello(1, "engine", "key", "uuid", 1, "host", held=[messages.AttemptKey("t", 2)])),
    (frames.decode_from_client, messages.Submit(3, [SPEC], [messages.Function(b"d", b"p")])),
    (frames.decode_from_client, messages.Request(1, messages.FindRecords({"state": {"$in": [None, 1.5]}}, ["msg_id"]))),
    (frames.decode_from_client, messages.Request(2, messages.History())),
    (frames.decode_to_client, messages.Results([TaskDone("t", 1, "ok", 0.0, 1.0, b"x", content={"a": [1, None]})])),
    (frames.decode_to_client, messages.Reply(1, error=messages.ErrorInfo("E", "why"))),
    (frames.decode_from_engine, messages.Returned([messages.AttemptKey("t", 1)])),
    (frames.decode_to_engine, messages.Run([SPEC], [1])),
    (frames.decode_from_nanny, messages.EngineDied("u", -9, 1 << 40, None, True)),
    (frames.decode_to_nanny, messages.SignalProcesses(2, ["u"])),
]


@pytest.mark.parametrize(("decode", "message"), SAMPLES, ids=lambda value: type(value).__name__)
def test_a_message_arrives_as_it_was_sent(decode: Any, message: messages.Message):
    assert decode(frames.encode(message)) == message


def test_a_message_of_another_direction_is_refused():
    with pytest.raises(ProtocolError, match="this kind of peer may not send such a message"):
        frames.decode_from_client(frames.encode(messages.Run([], [])))


def test_a_message_with_an_extension_type_is_refused():
    options = messages.TaskOptions(metadata={"x": [msgspec.msgpack.Ext(5, b"z")]})
    spec = msgspec.structs.replace(SPEC, options=options)
    with pytest.raises(ProtocolError, match="it holds the extension type 5"):
        frames.decode_from_client(frames.encode(messages.Submit(3, [spec])))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good message with something wrong in it."""
    data = bytearray(frames.encode(draw(st.sampled_from(SAMPLES))[1]))
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@pytest.mark.fault(26)
@settings(max_examples=100_000 if NIGHTLY else 300, deadline=None)
@given(st.one_of(st.binary(max_size=200), damaged()))
def test_garbage_is_a_protocol_error_and_nothing_else(data: bytes):
    for decode in DECODERS:
        try:
            message = decode(data)
        except ProtocolError:
            continue
        assert isinstance(message, messages.Message)


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xdd\xff\xff\xff\xff",  # an array of 2**32 - 1 elements
        b"\x93\xa6submit\x01\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",  # 4 GB of bytes
        b"\x91" * 100_000,  # nested without end
        b"\x93\xa7request\x01\x92\xabfindrecords" + b"\x81\xa1a" * 100_000 + b"\x01",
        b"\x92\xa4ping\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x92\xa4ping\xc0",
        b"\x92\xa8goodbye\xff",
        b"\x92\xa7goodbye\xa2\xff\xfe",  # not UTF-8
    ],
    ids=lambda data: repr(data[:16]),
)
def test_hostile_headers_are_refused_without_harm(data: bytes):
    for decode in DECODERS:
        with contextlib.suppress(ProtocolError):
            assert isinstance(decode(data), messages.Message)


def test_a_buffer_that_tasks_share_travels_once():
    table = frames.FrameTable()
    one, other = bytearray(10), bytearray(10)
    assert table.add([one, other]) == (0, 1)
    assert table.add([other]) == (1,)
    assert table.add([one, bytearray(1)]) == (0, 2)
    assert table.frames[0] is one
    assert len(table.frames) == 3


def test_each_task_picks_its_own_frames():
    assert frames.pick(SPEC, [b"a", b"b", b"c"]) == (b"a", b"c")
    with pytest.raises(ProtocolError, match=r"task t names frames \(0, 2\) of 2"):
        frames.pick(SPEC, [b"a", b"b"])


@pytest.mark.parametrize("index", [-1, -3, 2, 1 << 40])
def test_a_frame_that_is_not_there_is_a_protocol_error(index: int):
    with pytest.raises(ProtocolError):
        frames.pick(TaskSpec("t", b"", b"", 0.0, frames=(index,)), [b"a", b"b"])


def test_the_size_of_a_payload_counts_its_frames():
    assert frames.size(b"abc", ()) == 3
    assert frames.size(b"", [np.zeros(4), b"xy"]) == 34


# -------------------------------------------------------------------------------------------- payloads


def there_and_back(value: Any) -> Any:
    stream, beside = payload.dumps(value)
    return payload.loads(stream, [bytes(memoryview(frame)) for frame in beside])


ATOMS = [None, True, 0, -1, 1 << 100, 1.5, 2j, "ü", b"", b"x", (), [1, [2]], {"a": {1}}, range(3), Ellipsis, int, len]


@pytest.mark.parametrize("value", ATOMS, ids=repr)
def test_values_arrive_as_they_were(value: Any):
    assert there_and_back(value) == value
    assert payload.dumps(value)[1] == ()


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    )
)
def test_any_nest_of_values_arrives_as_it_was(value: Any):
    assert there_and_back(value) == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3),
        np.arange(100_000.0),
        np.zeros((100, 200), order="F"),
        np.arange(100_000)[::3],  # not contiguous
        np.zeros(0),
        np.array(["a", None], dtype=object),
        np.zeros(10_000, dtype=[("x", "i4"), ("y", "f8")]),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_arrays_arrive_as_they_were(array: np.ndarray):
    back = there_and_back({"data": [array]})["data"][0]
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_a_large_array_travels_beside_the_stream_uncopied():
    array = np.arange(100_000.0)
    stream, [beside] = payload.dumps(array, keep=payload.as_is)
    assert len(stream) < 1000
    assert np.shares_memory(np.frombuffer(beside), array)
    assert payload.dumps(np.arange(10.0))[1] == (), "a small one inside"


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_large_bytes_travel_beside_the_stream_uncopied(kind: type):
    value = kind(b"x" * 1_000_000)
    stream, [beside] = payload.dumps(value, keep=payload.as_is)
    assert len(stream) < 1000
    assert np.shares_memory(np.frombuffer(beside, "u1"), np.frombuffer(value, "u1"))
    back = payload.loads(stream, [memoryview(beside)])
    assert type(back) is kind
    assert back == value


def test_a_large_stream_is_a_frame_of_its_own():
    value = ["text" * 10] * 10 + [str(n) for n in range(50_000)]
    stream, beside = payload.dumps(value)
    assert stream == b""
    assert len(beside) == 1
    assert payload.loads(stream, beside) == value


def test_lambdas_and_what_holds_them_arrive():
    factor = 3
    assert there_and_back(lambda x: x * factor)(14) == 42
    assert there_and_back({"f": [lambda: "inside"]})["f"][0]() == "inside"
    array = np.arange(10_000.0)
    function, back = there_and_back((lambda: factor, array))
    assert function() == 3
    assert np.array_equal(array, back)


def test_arguments_of_a_call_arrive():
    blob = b"y" * 100_000
    stream, beside = payload.dumps_call((1, blob), {"key": "word"})
    assert payload.loads(stream, beside) == ((1, blob), {"key": "word"})
    assert payload.loads(*payload.dumps_call((), {})) == ((), {})


class Holder:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    ("args", "kwargs", "where"),
    [
        ((1, threading.Lock()), {}, "argument 1 "),
        ((), {"guard": threading.Lock()}, "argument 'guard' "),
        (([{"deep": (0, threading.Lock())}],), {}, "argument 0[0]['deep'][1] "),
        ((Holder(fine=1, inner=Holder(lock=threading.Lock())),), {}, "argument 0.inner.lock "),
        (((x for x in ()),), {}, "argument 0 "),
    ],
)
def test_what_cannot_be_pickled_is_named_with_the_path_to_it(args: Any, kwargs: Any, where: str):
    with pytest.raises(SerializationError) as caught:
        payload.dumps_call(args, kwargs)
    text = str(caught.value)
    assert text.startswith(f"{where}cannot be pickled, so nothing was sent")
    assert "lock" in text or "generator" in text, "its type is named"
    assert isinstance(caught.value, TypeError)


def test_what_travels_beside_a_failed_pickle_does_not_travel_twice():
    array = np.zeros(100_000)
    stream, beside = payload.dumps([array, lambda: 1])  # the plain pickler has seen the array when it gives up
    assert len(beside) == 1
    assert len(payload.loads(stream, beside)) == 2


# -------------------------------------------------------------------------------------------- functions


def test_a_function_of_a_module_travels_by_name():
    cache = FunctionCache()
    sent = cache.get(json.dumps)
    assert sent.payload == pickle.dumps(json.dumps, 5)
    assert cache.get(json.dumps) is sent
    assert load_function(sent).call is json.dumps


def test_the_digest_names_the_content():
    cache = FunctionCache()
    sent = cache.get(lambda x: x + 1)
    assert sent.digest == digest_of(sent.payload)
    assert len(sent.digest) == 16


def test_a_steady_function_is_pickled_once():
    cache, step = FunctionCache(), 2
    function = lambda x: x + step  # noqa: E731
    assert cache.get(function) is cache.get(function)


def test_a_closure_that_has_changed_is_pickled_again():
    cache, step = FunctionCache(), 1

    def function(x: int) -> int:
        return x + step

    first = cache.get(function)
    step = 10
    second = cache.get(function)
    assert first.digest != second.digest
    assert load_function(first).call(1) == 2
    assert load_function(second).call(1) == 11


def test_defaults_and_attributes_that_have_changed_are_seen():
    cache = FunctionCache()

    def function(x: int = 1) -> Any:
        return x

    first = cache.get(function)
    function.__defaults__ = (2,)
    second = cache.get(function)
    assert load_function(second).call() == 2
    function.note = "n"  # type: ignore[attr-defined]
    assert load_function(cache.get(function)).call.note == "n"  # type: ignore[attr-defined]
    assert len({first.digest, second.digest, cache.get(function).digest}) == 3


@pytest.mark.parametrize("change", ["list", "array", "object", "nested"])
def test_what_changes_in_place_is_seen_on_every_use(change: str):
    cache = FunctionCache()
    captured: Any = {"list": [1], "array": np.array([1]), "object": Holder(v=[1]), "nested": (0, [1])}[change]
    inner = captured.v if change == "object" else captured[1] if change == "nested" else captured
    function = lambda: captured  # noqa: E731
    first = cache.get(function)
    inner[0] = 2
    second = cache.get(function)
    assert first.digest != second.digest
    back = load_function(second).call()
    assert (back.v if change == "object" else back[1] if change == "nested" else back)[0] == 2


def test_a_helper_that_has_changed_is_seen():
    cache, step = FunctionCache(), 1

    def helper() -> int:
        return step

    def function() -> int:
        return helper() + 1

    assert load_function(cache.get(function)).call() == 2
    step = 5
    assert load_function(cache.get(function)).call() == 6


def test_bound_methods_carry_their_object():
    cache, values = FunctionCache(), [1]
    first = cache.get(values.append)
    values.append(2)
    assert cache.get(values.append).digest != first.digest


def test_the_cache_keeps_no_function_alive():
    cache = FunctionCache()
    cache.get(lambda: 1)
    assert len(cache._known) == 0


def test_a_function_that_cannot_be_pickled_names_what_it_refers_to():
    guard = threading.Lock()
    with pytest.raises(SerializationError, match=r"guard \(a .*lock\)"):
        FunctionCache().get(lambda: guard)


def test_collected_globals_are_kept_apart_from_the_namespace():
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    functions.bind_namespace(namespace)
    try:
        exec("base = 40\ndef add(x): return base + x", namespace)
        sent = FunctionCache().get(namespace["add"])
        del namespace["base"]
        loaded = load_function(sent)
        assert loaded.travelled == {"base": 40}
        assert "base" not in namespace
        assert loaded.call.__globals__ is namespace, "it lives where it arrived"
        namespace["base"] = 1
        assert loaded.call(1) == 2, "names of the engine win"
        assert engine_calls.evaluate("base + 1") == 2
    finally:
        functions.bind_namespace(None)


def test_functions_and_classes_of_a_script_arrive_in_another_process(tmp_path: Path):
    """What a `__main__` defines is sent by value: the receiving process has another `__main__`."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, pickle
            from engineroom.wire import payload
            from engineroom.wire.functions import FunctionCache
            class Point:
                def __init__(self, x): self.x = x
            offset = 40
            def helper(x): return x + offset
            def function(point): return helper(point.x)
            cache = FunctionCache()
            first = cache.get(function)
            assert cache.get(function) is first
            arguments = payload.dumps_call((Point(2),), {})
            offset = 50
            second = cache.get(function)
            assert second.digest != first.digest
            sys.stdout.buffer.write(pickle.dumps((first.payload, second.payload, arguments)))
            """
        )
    )
    sent = subprocess.run([sys.executable, script], capture_output=True, check=True).stdout
    first, second, arguments = pickle.loads(sent)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    functions.bind_namespace(namespace)
    try:
        for sent_function, expected in ((first, 42), (second, 52)):
            loaded = load_function(Function(digest_of(sent_function), sent_function))
            args, kwargs = payload.loads(*arguments)
            namespace.update(loaded.travelled)
            assert loaded.call(*args, **kwargs) == expected
    finally:
        functions.bind_namespace(None)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(contract(), indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {GOLDEN}")


def test_what_several_tasks_of_a_call_have_is_kept_once():
    kept = []

    def keep(memory):
        kept.append(memory.nbytes)
        return bytes(memory)

    once = payload.once(keep)
    constant, blob = np.arange(100_000.0), b"x" * 300_000
    frames = [payload.dumps_call((constant, blob, np.arange(n + 50_000.0)), {}, keep=once)[1] for n in range(3)]
    assert len(kept) == 2 + 3
    assert len({id(found[0]) for found in frames}) == len({id(found[1]) for found in frames}) == 1
    assert len({id(found[2]) for found in frames}) == 3
    for n, found in enumerate(frames):
        assert bytes(found[2]) == np.arange(n + 50_000.0).tobytes()


def test_temporary_memory_of_a_call_is_not_mistaken_for_other_memory():
    """Arrays that pickling makes for a moment may get the same id one after the other."""
    once = payload.once(payload.as_copy)
    for n in range(20):
        stream, frames = payload.dumps_call((np.full(100_000, n, np.uint8)[::-1][::-1].copy(),), {}, keep=once)
        (value,), _ = payload.loads(stream, frames)
        assert (value == n).all()


def test_columns_come_back():
    columns = {"msg_id": ["a", "b"], "submitted": [datetime(2026, 1, 2, tzinfo=UTC), None]}
    assert frames.decode_columns(frames.encode_columns(columns)) == columns


EXTENSION = {"a": [msgspec.msgpack.Ext(5, b"")]}


@pytest.mark.parametrize("sent", [[1], {"a": 1}, {1: [1]}, {"a": [1], "b": [1, 2]}, EXTENSION])
def test_other_columns_are_refused(sent: object):
    with pytest.raises(ProtocolError):
        frames.decode_columns(msgspec.msgpack.encode(sent))
