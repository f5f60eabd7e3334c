"""An event loop that ends what it has begun before it closes."""

import asyncio
import contextlib
from collections.abc import Iterator

__all__ = ["patient_event_loops"]


class _PatientLoop(asyncio.SelectorEventLoop):
    def close(self) -> None:
        if not self.is_closed() and (pending := asyncio.all_tasks(self)):
            self.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        super().close()


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _PatientLoop()


@contextlib.contextmanager
def patient_event_loops() -> Iterator[None]:
    """Event loops that are made in the block wait for their tasks when they are closed.

    orbax reads all arrays at once and closes its loop at the first that fails. The reads that are still on their way
    then find no loop, and each prints a traceback after the one sentence that says what is wrong.
    """
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(_Policy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(before)
