"""When a silent engine is called hung, and when it is only slow."""

import asyncio

import pytest

from moorage_runtime.watchdog import Suspicion, WatchdogPolicy, hung, judge

POLICY = WatchdogPolicy(silence=10, confirm=4, patience=300)
SUSPICION = Suspicion(since=100.0, cpu_seconds=50.0, page_faults=7)


@pytest.mark.parametrize(
    ("elapsed", "silent", "answers", "activity", "works_on_cpu", "verdict"),
    [
        pytest.param(5, 15, False, (50.0, 7), True, "does not answer and does nothing", id="stopped"),
        pytest.param(5, 15, True, (50.0, 7), True, "does nothing, while requests run", id="stuck-behind-its-http"),
        pytest.param(5, 15, True, (50.0, 7), False, None, id="works-elsewhere"),
        pytest.param(5, 15, False, (50.0, 7), False, "does not answer", id="stopped-works-elsewhere"),
        pytest.param(5, 15, False, (54.0, 7), True, None, id="long-prompt"),
        pytest.param(5, 15, False, (50.0, 9), True, None, id="slow-disk"),
        pytest.param(300, 310, True, (350.0, 7), True, None, id="very-long-prompt"),
        pytest.param(300, 310, False, (350.0, 7), True, "sent nothing for 310 s and does not answer", id="spinning"),
        pytest.param(3, 13, False, (50.0, 7), True, None, id="not-confirmed"),
        pytest.param(5, 15, False, (50.05, 7), True, "does nothing", id="answers-cost-a-little"),
    ],
)
def test_a_verdict_needs_all_its_evidence(
    *,
    elapsed: float,
    silent: float,
    answers: bool,
    activity: tuple[float, int],
    works_on_cpu: bool,
    verdict: str | None,
) -> None:
    found = judge(
        POLICY,
        SUSPICION,
        elapsed=elapsed,
        silent=silent,
        answers=answers,
        activity=activity,
        works_on_cpu=works_on_cpu,
    )

    assert (found is None) == (verdict is None)
    assert verdict is None or verdict in (found or "")


async def test_a_byte_ends_the_suspicion() -> None:
    silences = iter([0.0, 20.0, 20.0, 0.0])  # quiet, silent twice, a byte
    probes = 0

    async def probe() -> bool:
        nonlocal probes
        probes += 1
        return False

    with pytest.raises(StopIteration):  # it never came to a verdict
        try:
            await hung(
                policy=WatchdogPolicy(tick=0.0, silence=10, confirm=0),
                silence=lambda: next(silences),
                probe=probe,
                activity=lambda: (0.0, 0),
                works_on_cpu=True,
            )
        except RuntimeError as error:  # a StopIteration cannot leave a coroutine
            raise error.__cause__ or error from None
    assert probes == 1


async def test_a_silence_that_holds_is_a_hang() -> None:
    async def probe() -> bool:
        return False

    async with asyncio.timeout(5):
        reason = await hung(
            policy=WatchdogPolicy(tick=0.001, silence=10, confirm=0.01),
            silence=lambda: 20.0,
            probe=probe,
            activity=lambda: (0.0, 0),
            works_on_cpu=True,
        )

    assert reason == "it sent nothing for 20 s, does not answer and does nothing"
