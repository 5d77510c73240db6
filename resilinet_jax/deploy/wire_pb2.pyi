from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Message(_message.Message):
    __slots__ = ("request", "values", "silent", "witness", "watermark", "blind", "epoch")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    WITNESS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    BLIND_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request: int
    values: bytes
    silent: bool
    witness: _containers.RepeatedScalarFieldContainer[int]
    watermark: int
    blind: bool
    epoch: int
    def __init__(
        self,
        request: _Optional[int] = ...,
        values: _Optional[bytes] = ...,
        silent: bool = ...,
        witness: _Optional[_Iterable[int]] = ...,
        watermark: _Optional[int] = ...,
        blind: bool = ...,
        epoch: _Optional[int] = ...,
    ) -> None: ...

class Control(_message.Message):
    __slots__ = ("open", "close", "since", "want", "ack", "epoch")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    open: bool
    close: bool
    since: int
    want: _containers.RepeatedScalarFieldContainer[int]
    ack: int
    epoch: int
    def __init__(
        self,
        open: bool = ...,
        close: bool = ...,
        since: _Optional[int] = ...,
        want: _Optional[_Iterable[int]] = ...,
        ack: _Optional[int] = ...,
        epoch: _Optional[int] = ...,
    ) -> None: ...

class Question(_message.Message):
    __slots__ = ("request", "epoch")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request: int
    epoch: int
    def __init__(self, request: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class CountersQuestion(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CountersAnswer(_message.Message):
    __slots__ = ("counts",)
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...

    COUNTS_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.ScalarMap[str, int]
    def __init__(self, counts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("request", "status", "values", "witness", "epoch")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ANSWERED: _ClassVar[Answer.Status]
        NO_INFORMATION: _ClassVar[Answer.Status]
        DEADLINE: _ClassVar[Answer.Status]

    ANSWERED: Answer.Status
    NO_INFORMATION: Answer.Status
    DEADLINE: Answer.Status
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    WITNESS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request: int
    status: Answer.Status
    values: bytes
    witness: _containers.RepeatedScalarFieldContainer[int]
    epoch: int
    def __init__(
        self,
        request: _Optional[int] = ...,
        status: _Optional[_Union[Answer.Status, str]] = ...,
        values: _Optional[bytes] = ...,
        witness: _Optional[_Iterable[int]] = ...,
        epoch: _Optional[int] = ...,
    ) -> None: ...
