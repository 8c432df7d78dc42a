"""`torch.npu`, `torch.mlu`, ...: what torch and jobs ask of a device's module."""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.emulation import streams

_GB = 10**9  # as the makers' figures, and not 2**30
Where = int | str | torch.device | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """What `get_device_properties` tells."""

    name: str
    total_memory: int


class DeviceModule:
    """The module of the emulated device. Each worker sees its own `count` chips.

    Random numbers come from the generator of the CPU: equal seeds give equal draws on both.
    """

    Stream, Event = streams.EmulatedStream, streams.EmulatedEvent

    def __init__(self, name: str, chip: str, count: int, memory_gb: float | None) -> None:
        """Stand for `count` chips called `chip`."""
        self._name = name
        self._chip = f"{chip} (emulated)"
        self._count = count
        self._memory = int((memory_gb or 0) * _GB)
        self._current = 0

    # --- which devices there are --------------------------------------------------------------

    def is_available(self) -> bool:
        """Whether there is a device."""
        return True

    def is_initialized(self) -> bool:
        """Whether the device is ready."""
        return True

    def init(self) -> None:
        """Make the device ready, which it is."""

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        """Return the number of chips that this process sees."""
        return self._count

    def current_device(self) -> int:
        """Return the number of the device in use."""
        return self._current

    def set_device(self, device: Where) -> None:
        """Use another device."""
        self._current = self._index(device)

    def get_device_name(self, device: Where = None) -> str:
        """Return the name of the chip, which says that it is emulated."""
        self._index(device)
        return self._chip

    def get_device_properties(self, device: Where = None) -> Properties:
        """Return name and memory."""
        return Properties(name=self.get_device_name(device), total_memory=self._memory)

    def synchronize(self, device: Where = None) -> None:
        """Wait for the device: every operator is done when it returns."""
        self._index(device)

    def is_bf16_supported(self) -> bool:
        """Whether bfloat16 works: the CPU's does."""
        return True

    def _index(self, device: Where) -> int:
        if device is None:
            return self._current
        given = device if isinstance(device, int) else torch.device(device).index
        index = self._current if given is None else given
        if not 0 <= index < self._count:
            raise RuntimeError(
                f"invalid device ordinal {index!r} of {self._name!r}: this process sees "
                f"{self._count!r}"
            )
        return index

    # --- streams ------------------------------------------------------------------------------

    def current_stream(self, device: Where = None) -> streams.EmulatedStream:
        """Return the stream in use."""
        self._index(device)
        return streams.EmulatedStream()

    def default_stream(self, device: Where = None) -> streams.EmulatedStream:
        """Return the stream that is in use where nobody says otherwise."""
        return self.current_stream(device)

    def stream(self, _stream: streams.EmulatedStream) -> AbstractContextManager[None]:
        """Return a context in which a stream is in use."""
        return nullcontext()

    # --- memory -------------------------------------------------------------------------------

    def memory_allocated(self, device: Where = None) -> int:
        """Return the bytes of all tensors on the device, counted now."""
        self._index(device)
        seen = {}
        for held in gc.get_objects():
            inner = getattr(held, "on_cpu", None) if issubclass(type(held), torch.Tensor) else None
            if inner is not None:
                storage = inner.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
        return sum(seen.values())

    def memory_reserved(self, device: Where = None) -> int:
        """Return the bytes that are taken from the device: no cache keeps more."""
        return self.memory_allocated(device)

    def mem_get_info(self, device: Where = None) -> tuple[int, int]:
        """Return free and total bytes of the chip, by its published memory."""
        return self._memory - self.memory_allocated(device), self._memory

    def empty_cache(self) -> None:
        """Give unused memory back: none is kept."""

    # --- random numbers -----------------------------------------------------------------------

    def manual_seed(self, seed: int) -> None:
        """Seed what is drawn on the device."""
        torch.default_generator.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seed what is drawn on all devices."""
        self.manual_seed(seed)

    def get_rng_state(self, device: Where = None) -> torch.Tensor:
        """Return the state of the generator."""
        self._index(device)
        return torch.default_generator.get_state()

    def set_rng_state(self, state: torch.Tensor, device: Where = None) -> None:
        """Put the generator into a state."""
        self._index(device)
        torch.default_generator.set_state(state)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - there is nothing to return
        """Refuse what is not emulated.

        Raises:
            AttributeError: Always; it says so.
        """
        raise AttributeError(f"torch.{self.__dict__.get('_name')}.{name} is not emulated")
