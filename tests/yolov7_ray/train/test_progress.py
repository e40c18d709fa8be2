"""Save requests to several runs at a time, and lines in the order in which a worker wrote them."""

import asyncio

from yolov7_ray.train.progress import Line, ProgressActor, in_order
from yolov7_ray.train.progress_bar import Position


def test_a_save_waits_for_every_run_that_trains():
    async def scenario() -> None:
        actor = ProgressActor.__ray_metadata__.modified_class()
        await asyncio.wait_for(actor.save(repeatedly=True), 10)  # nothing trains
        for label in ("a", "b", "c"):
            assert await actor.save_wanted(label) is True  # it began after the request, which is repeated
        saving = asyncio.ensure_future(actor.save())
        await asyncio.sleep(0)
        assert [await actor.save_wanted(label) for label in ("a", "b", "c")] == [True, True, True]
        await actor.saved("a")
        assert await actor.save_wanted("a") is False and await actor.save_wanted("b") is True
        await actor.replaced("b")  # its workers are new: they have nothing to save
        assert await actor.save_wanted("b") is False and not saving.done()
        await actor.saved("c")
        await asyncio.wait_for(saving, 10)

    asyncio.run(scenario())


def test_a_repeated_request_stays_until_the_workers_are_replaced():
    async def scenario() -> None:
        actor = ProgressActor.__ray_metadata__.modified_class()
        await actor.save_wanted("")
        saving = asyncio.ensure_future(actor.save(repeatedly=True))
        await asyncio.sleep(0)
        await actor.saved("")
        await asyncio.wait_for(saving, 10)
        assert await actor.save_wanted("") is True
        await actor.replaced("")
        assert await actor.save_wanted("") is False

    asyncio.run(scenario())


def test_lines_that_overtook_each_other_are_put_back_in_order():
    came = [Line("a", 1, "waiting"), Line("", 0, "a node left"), Line("a", 3, "training on 2 workers"),
            Line("b", 2, "second of b"), Line("a", 2, "resumed"), Line("", 0, "another"), Line("b", 1, "first of b")]
    assert in_order(came) == ["waiting", "a node left", "resumed", "first of b", "training on 2 workers", "another",
                              "second of b"]
    assert in_order([]) == []


def test_where_runs_are_is_taken_once_and_forgotten_with_their_workers():
    async def scenario() -> None:
        actor = ProgressActor.__ray_metadata__.modified_class()
        await actor.write("a line")
        await actor.at("a", Position(1, 2, 3, 4))
        await actor.at("a", Position(1, 2, 4, 4))
        assert await actor.take() == (["a line"], {"a": Position(1, 2, 4, 4)})
        assert await actor.take() == ([], {})
        await actor.at("a", Position(1, 2, 4, 4))
        await actor.replaced("a")
        assert await actor.take() == ([], {})

    asyncio.run(scenario())
