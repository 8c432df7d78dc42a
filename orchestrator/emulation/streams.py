"""Streams and events of an emulated device: every operator is done when it returns."""

from __future__ import annotations


class EmulatedEvent:
    """A moment that has passed."""

    def __init__(self, **_options: object) -> None:
        """Take what torch says of an event."""

    def record(self, _stream: object = None) -> None:
        """Be the moment up to which a stream has come."""

    def wait(self, _stream: object = None) -> None:
        """Have a stream wait for the moment."""

    def synchronize(self) -> None:
        """Wait for the moment."""

    def query(self) -> bool:
        """Whether it has passed."""
        return True


class EmulatedStream:
    """An order of operators, which are all done."""

    def __init__(self, *_device: object, **_options: object) -> None:
        """Take what torch says of a stream."""

    def wait_stream(self, _other: object) -> None:
        """Wait for what another one has to do."""

    def wait_event(self, _event: object) -> None:
        """Wait for a moment."""

    def record_event(self, event: EmulatedEvent | None = None) -> EmulatedEvent:
        """Return the moment up to which it has come."""
        return event or EmulatedEvent()

    def synchronize(self) -> None:
        """Wait for it."""
