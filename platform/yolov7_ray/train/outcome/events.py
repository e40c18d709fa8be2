"""TensorBoard events as bytes, so that a run's log can be kept in memory and written whole."""

import struct
import time

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar


def beginning() -> bytes:
    """The first record of a file."""
    return record(Event(wall_time=time.time(), file_version="brain.Event:2"))


def figure(key: str, value: float, epoch: int) -> bytes:
    """A figure after an epoch."""
    return record(Event(wall_time=time.time(), step=epoch, summary=scalar(key, value)))


def picture(key: str, jpeg: bytes, size_hw: tuple[int, int], epoch: int) -> bytes:
    """A JPEG."""
    shown = Summary.Image(height=size_hw[0], width=size_hw[1], colorspace=3, encoded_image_string=jpeg)
    return record(Event(wall_time=time.time(), step=epoch, summary=Summary(value=[Summary.Value(tag=key, image=shown)])))


def record(event: Event) -> bytes:
    """An event as a record of a TFRecord file: length, its checksum, data, its checksum."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
