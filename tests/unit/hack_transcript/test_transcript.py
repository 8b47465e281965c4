"""How what kubectl printed gets into a page, and what of a model the stories look at."""

import pytest

from hack.transcript import is_ready, model, preempted_by, queue_summary, written

PAGE = """# A page
<!-- transcript: one -->
```
old
older
```
Text.
```
no transcript
```
<!-- transcript: the-other -->
```
```
"""


def test_blocks_are_put_in_at_their_marks_and_nothing_else_changes() -> None:
    page = written(PAGE, {"one": "$ a\n", "the-other": "$ b\n"})
    assert page == PAGE.replace("old\nolder\n", "$ a\n").replace("-->\n```\n```", "-->\n```\n$ b\n```")
    assert written(page, {"one": "$ a\n", "the-other": "$ b\n"}) == page


@pytest.mark.parametrize("blocks", [{"one": ""}, {"one": "", "the-other": "", "third": ""}])
def test_a_mark_without_a_block_and_a_block_without_a_mark_are_refused(blocks: dict[str, str]) -> None:
    with pytest.raises(KeyError, match=r"third|the-other"):
        written(PAGE, blocks)


def test_what_the_stories_wait_for() -> None:
    low = model("low", 2, 3, replicas=2)
    assert low["spec"]["gpu"] == {"count": 2}
    assert (is_ready(low), is_ready(None), queue_summary(low)) == (False, False, "")
    low["status"] = {
        "readyReplicas": 2,
        "preemptedBy": "team-b/big",
        "queue": {"summary": "1/2"},
    }
    assert is_ready(low, 2)
    assert not is_ready(low)
    assert preempted_by({"low": low, "other": model("other", 1, 1)}, "team-b/big") == ["low"]
    assert queue_summary(low) == "1/2"
