"""What a closing event loop does with what it has begun."""

import asyncio

import pytest

from kaem_jax.runs.checkpoints import patient_event_loops


def run_both(ended):
    """One task fails at once while another still works, in a loop that is then closed."""

    async def slow():
        await asyncio.sleep(0.05)
        ended.append("slow")

    async def failing():
        raise ValueError("damaged")

    async def both():
        await asyncio.gather(slow(), failing())

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(both())
    finally:
        loop.close()


def test_a_closing_loop_waits_only_where_it_was_asked_to():
    policy, ended = asyncio.get_event_loop_policy(), []
    with pytest.raises(ValueError, match="damaged"), patient_event_loops():
        run_both(ended)
    assert ended == ["slow"]
    assert asyncio.get_event_loop_policy() is policy
    loop = asyncio.new_event_loop()
    loop.close()
    assert not type(loop).__module__.startswith("kaem_jax")
