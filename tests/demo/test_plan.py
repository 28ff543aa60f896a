"""What the demo posts: the same for the same seed, in order, with its troubles where they can be seen."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import worker
from demo_parts.plan import (
    FORGERIES,
    Delivery,
    Trouble,
    file_entries,
    lanes,
    make_plan,
    read_troubles,
    sample_entries,
    write_troubles,
)

from queue_runtime import Message, connect, github
from queue_runtime.errors import ConfigurationError, DecodeError


def plan_of(count: int = 400, seed: int = 7) -> list[Delivery]:
    rng = random.Random(seed)
    return make_plan(sample_entries(rng), count, rng)


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan_of() == plan_of()
    assert plan_of() != plan_of(seed=8)


@pytest.mark.parametrize("seed", range(20))
def test_every_plan_has_one_poison_one_undecodable_and_three_forged(seed: int) -> None:
    plan = plan_of(200, seed)

    assert Counter(each.fate for each in plan) == {"handled": 201, "poison": 1, "undecodable": 1}
    assert {each.forgery for each in plan} == {None, *FORGERIES}
    assert len({each.id for each in plan}) == len(plan) == 203


def test_the_poison_has_neighbours_before_and_behind_it() -> None:
    plan = [each for each in plan_of() if each.forgery is None]
    (poison,) = [each for each in plan if each.fate == "poison"]
    session = [each for each in plan if each.session == poison.session]

    assert 2 <= session.index(poison) < len(session) - 2


def test_the_bot_can_decode_all_but_the_undecodable() -> None:
    with connect("memory://?queues=events") as client:
        refused = []
        for each in plan_of():
            message = Message(body=each.body, id=each.id, attributes={"github.event": each.event})
            client.send("events", message)
            (received,) = client.receive("events")
            try:
                worker.handle(received)
            except DecodeError as exc:
                refused.append((each.fate, str(exc)))
            client.complete(received)

    assert refused == [("undecodable", "payload.number: missing")]


def test_a_lane_has_all_of_a_session_in_order() -> None:
    plan = plan_of()

    dealt = lanes(plan, 8)

    assert sorted(each.id for lane in dealt for each in lane) == sorted(each.id for each in plan)
    for session in {each.session for each in plan if each.session is not None}:
        (lane,) = [lane for lane in dealt if any(each.session == session for each in lane)]
        in_lane = [each for each in lane if each.session == session]
        assert in_lane == [each for each in plan if each.session == session]


def test_troubles_survive_their_file_and_the_fix_takes_away_the_poison(tmp_path: Path) -> None:
    plan, path = plan_of(), tmp_path / "troubles.json"
    (poison,) = [each.id for each in plan if each.fate == "poison"]

    write_troubles(path, plan)
    troubles = dict(read_troubles(path))

    assert troubles == {each.id: each.trouble for each in plan if each.trouble != Trouble()}
    assert troubles.pop(poison).failures > worker.MAX_ATTEMPTS

    write_troubles(path, plan, fixed=True)

    assert read_troubles(path) == troubles


def test_the_samples_reach_every_handler_and_every_width_of_session() -> None:
    entries = list(islice(sample_entries(random.Random(7)), 400))
    sessions = {github.STRATEGIES["pull_request"](event, payload) for event, payload in entries}

    assert {event for event, _ in entries} >= set(worker.HANDLERS)
    assert {None, "octo-org", "octocat", "installation:4711", "octo-org/hello-world"} <= sessions


def test_a_file_is_posted_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "webhooks.json"
    path.write_text(
        json.dumps([{"event": "push", "payload": {"ref": "a"}}, {"event": "ping", "payload": {}}])
    )

    assert [event for event, _ in islice(file_entries(path), 5)] == ["push", "ping", "push", "ping", "push"]


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", '[{"event": "push"}]', "[]"])
def test_a_file_that_holds_no_deliveries_is_refused_by_name(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "webhooks.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(ConfigurationError, match=r"webhooks\.json"):
        file_entries(path)


def test_too_few_deliveries_for_the_troubles_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigurationError, match="post more of them"):
        plan_of(3)
