"""Ctrl-C while a training runs: at once, but not between the beginning of a step's update and its being recorded."""

from __future__ import annotations

from typing import Any


class Interrupts:
    """From entering to leaving, `with interrupts.held()` puts a KeyboardInterrupt off to its end; a second one is not.

    In other threads than the main one, and where somebody else handles SIGINT, it does nothing.
    """

    def __init__(self) -> None:
        self.depth, self.pending, self.installed = 0, False, False

    def __enter__(self) -> Interrupts:
        import signal
        import threading

        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self._handle)
            self.installed = True
        return self

    def __exit__(self, *error: Any) -> None:
        if self.installed:
            import signal

            signal.signal(signal.SIGINT, signal.default_int_handler)

    def held(self) -> _Held:
        return _Held(self)

    def _handle(self, *signal_and_frame: Any) -> None:
        if self.depth and not self.pending:
            self.pending = True
        else:
            raise KeyboardInterrupt


class _Held:
    __slots__ = ("interrupts",)

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts

    def __enter__(self) -> None:
        self.interrupts.depth = 1

    def __exit__(self, kind: Any, *error: Any) -> None:
        interrupts = self.interrupts
        interrupts.depth = 0
        pending, interrupts.pending = interrupts.pending, False
        if pending and kind is None:
            raise KeyboardInterrupt
