import re

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from resilinet_jax.deploy import wire_pb2
from resilinet_jax.deploy.artefact import Signature
from resilinet_jax.deploy.gates import ProtocolError
from resilinet_jax.deploy.wire import to_array, to_bytes, to_edges, to_words
from tests.helpers.process import ROOT

KINDS = {"uint64": FieldDescriptor.TYPE_UINT64, "fixed64": FieldDescriptor.TYPE_FIXED64,
         "bytes": FieldDescriptor.TYPE_BYTES, "bool": FieldDescriptor.TYPE_BOOL, "Status": FieldDescriptor.TYPE_ENUM,
         "map<string, uint64>": FieldDescriptor.TYPE_MESSAGE}  # fmt: skip


@given(st.sets(st.integers(0, 300)))
def test_any_set_of_hyperconnections_comes_back(edges):
    assert to_edges(to_words(edges)) == edges
    message = wire_pb2.Message.FromString(wire_pb2.Message(witness=to_words(edges)).SerializeToString())
    assert to_edges(message.witness) == edges


@pytest.mark.parametrize(
    ("shape", "dtype", "axis"), [((3,), "float32", 0), ((4, 2, 2), "float32", 3), ((2, 2, 3), "uint8", 0)]
)
def test_arrays_come_back_in_their_layout(shape, dtype, axis):
    signature = Signature((), shape, dtype, axis)
    full = list(shape)
    full.insert(axis, 5)
    array = np.random.default_rng(0).integers(0, 200, full).astype(dtype)
    got = to_array(to_bytes(array), signature)
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)
    for wrong in (b"", to_bytes(array)[:-1]):
        with pytest.raises(ProtocolError, match=f"{len(wrong)} bytes of values, expected a multiple of"):
            to_array(wrong, signature)


def test_the_generated_code_is_of_the_contract():
    text = re.sub(r"//.*", "", (ROOT / "resilinet_jax/deploy/wire.proto").read_text())
    written = {}
    for name, body in re.findall(r"message (\w+) \{((?:[^{}]|\{[^{}]*\})*)\}", text):
        own = re.sub(r"enum \w+ \{.*?\}", "", body)
        fields = re.findall(r"(repeated )?(map<string, uint64>|\w+) (\w+) = (\d+);", own)
        written[name] = {
            field: (int(number), KINDS[kind], bool(many) or "map" in kind) for many, kind, field, number in fields
        }
    made = {
        name: {f.name: (f.number, f.type, f.is_repeated) for f in message.fields}
        for name, message in wire_pb2.DESCRIPTOR.message_types_by_name.items()
    }
    assert made == written
    assert len(made["Message"]) == 7
    assert set(wire_pb2.DESCRIPTOR.services_by_name) == set(re.findall(r"service (\w+)", text))
