"""Which pod gets a request, and when a failing one is passed over."""

from moorage_gateway.balance import FAILURES, Backends, Endpoint

A, B, C = ("10.0.0.1", 8000), ("10.0.0.2", 8000), ("10.0.0.3", 8000)


def backends(*addresses: tuple[str, int]) -> Backends:
    made = Backends()
    made.update(addresses)
    return made


def picked(from_: Backends, now: float = 0.0) -> Endpoint:
    found = from_.pick(now)
    assert found is not None
    return found


async def test_the_pod_with_the_fewest_in_flight_is_next() -> None:
    made = backends(A, B, C)
    for place, endpoint in enumerate(made):
        endpoint.in_flight = 2 - place
    assert picked(made).pool.host == C[0]


async def test_of_equals_each_has_its_turn() -> None:
    made = backends(A, B, C)
    assert {picked(made).pool.host for _ in range(3)} == {A[0], B[0], C[0]}


async def test_a_pod_that_fails_is_passed_over_then_probed_by_one_request_and_taken_back() -> None:
    made = backends(A, B)
    bad = next(iter(made))
    for _ in range(FAILURES):
        bad.failed(0.0)

    assert {picked(made, 0.5).pool.host for _ in range(4)} == {B[0]}
    picked_later = [picked(made, 1.5).pool.host for _ in range(4)]
    assert picked_later.count(A[0]) == 1
    bad.succeeded()
    assert {picked(made, 1.5).pool.host for _ in range(4)} == {A[0], B[0]}


async def test_when_all_fail_there_is_none() -> None:
    made = backends(A)
    for _ in range(FAILURES):
        next(iter(made)).failed(0.0)
    assert made.pick(0.5) is None
    assert made.pick(1.5) is not None


async def test_the_pause_grows() -> None:
    made = backends(A)
    bad = next(iter(made))
    pauses = []
    for _ in range(10):
        bad.failed(0.0)
        pauses.append(bad.open_until)
    assert pauses == [0, 0, 1, 2, 4, 8, 16, 30, 30, 30]


async def test_pods_that_stay_keep_what_is_known_of_them() -> None:
    made = backends(A, B)
    kept = next(endpoint for endpoint in made if endpoint.pool.host == B[0])
    kept.in_flight = 3
    made.update([B, C])
    assert kept in list(made)
    assert [endpoint.pool.host for endpoint in made] == [B[0], C[0]]
