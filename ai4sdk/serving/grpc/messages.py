"""The messages of the Open Inference Protocol's gRPC service, as tables.

Source: the protocol's ``open_inference_grpc.proto`` (kserve/open-inference-protocol): names, numbers and types of
fields. They are made here at import, in a pool of their own, so that a client's own definitions of the same names may
be loaded beside them.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["METHODS", "SERVICE", "message"]

SERVICE = "inference.GRPCInferenceService"

METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""Each takes the message of its name with ``Request`` after it, and answers with that with ``Response``."""

_MODEL = ("name string 1", "version string 2")
_TENSOR = ("name string 1", "datatype string 2", "shape repeated:int64 3")
_PARAMETERS = "map:InferParameter"

_MESSAGES: dict[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("live bool 1",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("ready bool 1",),
    "ModelReadyRequest": _MODEL,
    "ModelReadyResponse": ("ready bool 1",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("name string 1", "version string 2", "extensions repeated:string 3"),
    "ModelMetadataRequest": _MODEL,
    "TensorMetadata": _TENSOR,
    "ModelMetadataResponse": (
        "name string 1", "versions repeated:string 2", "platform string 3", "inputs repeated:TensorMetadata 4",
        "outputs repeated:TensorMetadata 5",
    ),
    "InferParameter": ("bool_param oneof:bool 1", "int64_param oneof:int64 2", "string_param oneof:string 3"),
    "InferTensorContents": (
        "bool_contents repeated:bool 1", "int_contents repeated:int32 2", "int64_contents repeated:int64 3",
        "uint_contents repeated:uint32 4", "uint64_contents repeated:uint64 5", "fp32_contents repeated:float 6",
        "fp64_contents repeated:double 7", "bytes_contents repeated:bytes 8",
    ),
    "InferInputTensor": (*_TENSOR, f"parameters {_PARAMETERS} 4", "contents InferTensorContents 5"),
    "InferRequestedOutputTensor": ("name string 1", f"parameters {_PARAMETERS} 2"),
    "InferOutputTensor": (*_TENSOR, f"parameters {_PARAMETERS} 4", "contents InferTensorContents 5"),
    "ModelInferRequest": (
        "model_name string 1", "model_version string 2", "id string 3", f"parameters {_PARAMETERS} 4",
        "inputs repeated:InferInputTensor 5", "outputs repeated:InferRequestedOutputTensor 6",
        "raw_input_contents repeated:bytes 7",
    ),
    "ModelInferResponse": (
        "model_name string 1", "model_version string 2", "id string 3", f"parameters {_PARAMETERS} 4",
        "outputs repeated:InferOutputTensor 5", "raw_output_contents repeated:bytes 6",
    ),
}  # fmt: skip
"""Message → its fields: name, type, number."""

_Field = descriptor_pb2.FieldDescriptorProto


def message(name: str) -> Any:
    """Return the class of a message."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


def _made() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package="inference", syntax="proto3")
    for name, fields in _MESSAGES.items():
        made = file.message_type.add(name=name)
        if any(" oneof:" in field for field in fields):
            made.oneof_decl.add(name="parameter_choice")
        for field in fields:
            _add_field(made, *field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(made: descriptor_pb2.DescriptorProto, name: str, kind: str, number: str) -> None:
    form, _, inner = kind.rpartition(":")
    field = made.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if form in ("repeated", "map"):
        field.label = _Field.LABEL_REPEATED
    if form == "oneof":
        field.oneof_index = 0
    if form == "map":  # as protobuf has maps: messages of a key and a value
        entry = made.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", "string", "1")
        _add_field(entry, "value", inner, "2")
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".inference.{made.name}.{entry.name}"
    elif inner in _MESSAGES:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".inference.{inner}"
    else:
        field.type = getattr(_Field, f"TYPE_{inner.upper()}")


_POOL = _made()
