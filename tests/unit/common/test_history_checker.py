"""The history checker: a good history passes, and every validator finds its planted violation."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impala_common.run.event_history import pack_rows, unpack_rows
from impala_common.testing.history_checker import VALIDATORS, check
from impala_common.testing.patterns import WIDTH, SignedBanditEnv

Event = dict[str, Any]
Files = dict[str, list[Event]]
T, B, SLOTS = 4, 2, 2


def rows_of(env: SignedBanditEnv, last: list[np.ndarray]) -> str:
    """Returns the next T+1 observations of an environment, as the learner records them."""
    rows = [last[-1]]
    while len(rows) < T + 1:
        observation, _, is_over, _, _ = env.step(np.int64(0))
        rows.append(observation)
        if is_over and len(rows) < T + 1:
            rows.append(env.reset()[0])
    last.append(rows[-1])
    return pack_rows(np.stack(rows))


def make_good() -> Files:
    """Returns two lives of a learner and two actors; the first life is killed inside a save."""
    files: Files = {}
    clock = iter(range(10_000))

    def add(file: str, event: str, **fields: Any) -> None:
        files.setdefault(file, []).append({"event": event, "time_s": next(clock), **fields})

    envs = [[SignedBanditEnv() for _ in range(B)] for _ in range(2)]
    lasts = [[[env.reset(seed=0)[0]] for env in of_actor] for of_actor in envs]
    for actor in range(2):
        add(f"actor-{actor}", "begin", role="actor", actor_id=f"actor-{actor}")
    trained_steps = version = 0
    for life, (run_id, num_messages) in enumerate(((111, 12), (222, 10))):
        learner, front_end = f"learner-{life}", f"front_end-{life}"
        if life:
            trained_steps, version = 32, 4  # of the save that committed
        add(learner, "begin", role="learner", learner_run_id=run_id, life=life, version=version,
            restored="step-000000000032" if life else None, trained_steps=trained_steps,
            num_queued_at_most=B * SLOTS, unroll_length=T)  # fmt: skip
        add(learner, "weights", version=version)
        add(front_end, "begin", role="front_end", learner_run_id=run_id)
        of = {"learner_run_id": run_id, "epoch": 1}
        for actor in range(2):
            add(f"actor-{actor}", "session", index=actor, **of)
            add(f"actor-{actor}", "swap", version=version, learner_run_id=run_id)
        for number in range(num_messages):
            actor, seq = number % 2, 1 + number // 2
            acted = version
            marks = [f"{run_id}-{actor}-{seq}-{place}" for place in range(B)]
            rows = [rows_of(env, last) for env, last in zip(envs[actor], lasts[actor], strict=True)]
            add(f"actor-{actor}", "invoke", seq=seq, version=acted, marks=marks, **of)
            add(front_end, "accepted", index=actor, epoch=1, seq=seq, count=B, version=acted)
            if number < num_messages - 1:  # nobody heard of the last one
                add(f"actor-{actor}", "ok", seq=seq, outcome="accepted", **of)
            if life == 0 and number >= num_messages - 2:
                continue  # in storage when the learner was killed
            trained_steps, version = trained_steps + B * T, version + 1
            add(
                learner,
                "trained",
                version=version,
                steps=B * T,
                trained_steps=trained_steps,
                unrolls=[[actor, 1, seq, p, acted, marks[p], rows[p]] for p in range(B)],
            )
            add(learner, "weights", version=version)
            if number % 4 == 3:
                saved = {"trained_steps": trained_steps, "version": version}
                add(learner, "checkpoint_begin", **saved)
                if not (life == 0 and number == 7):  # killed inside the second save
                    name = f"step-{trained_steps:012d}"
                    add(learner, "checkpoint_commit", name=name, **saved)
        if life:
            add(f"actor-{1}", "info", seq=5, **of)
            add(front_end, "end", accepted=20, trained=18, dropped=0, queued=2)
            add(learner, "end", reason="stopping")
    return files


def write(folder: Path, files: Files) -> Path:
    for name, events in files.items():
        text = "".join(json.dumps(event) + "\n" for event in events)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def pick(files: Files, name: str, event: str, number: int = 0) -> Event:
    return [one for one in files[name] if one["event"] == event][number]


def drop(files: Files, name: str, event: str, number: int = 0) -> None:
    files[name].remove(pick(files, name, event, number))


GOOD = make_good()


def test_good_history_passes_and_is_counted(tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD)
    with (folder / "actor-0.jsonl").open("a") as file:
        file.write('{"event": "invo')  # torn by a kill: allowed at the end

    report = check(folder)

    report.raise_if_violated()
    figures = report.figures
    assert (figures["learner_lives"], figures["actor_lives"]) == (2, 2)
    assert figures["messages_sent"] == 22
    assert figures["messages_without_verdict"] == 2
    assert figures["unrolls_accepted"] == 44
    assert figures["unrolls_trained"] == 40
    assert figures["unrolls_queued_at_ends"] == 4
    assert figures["checkpoints_cut_short"] == 1
    assert figures["steps_lost_at_most"] == 80 - 32


def trained_twice(files: Files) -> None:
    again = copy.deepcopy(pick(files, "learner-1", "trained", 8))
    again["trained_steps"], again["version"] = again["trained_steps"] + 8, again["version"] + 1
    files["learner-1"].insert(-1, again)


def acknowledged_and_lost(files: Files) -> None:
    files["learner-0"][:] = [
        event
        for event in files["learner-0"]
        if event["event"] != "trained" or event["version"] != 1
    ]


def acknowledged_and_never_accepted(files: Files) -> None:
    drop(files, "front_end-1", "accepted", 9)
    pick(files, "actor-1", "info")["event"] = "ok"
    pick(files, "actor-1", "ok", -1)["outcome"] = "accepted"


def torn(files: Files) -> None:
    pick(files, "learner-0", "trained", 2)["unrolls"][1][5] = "another mark"


def columns_exchanged(files: Files) -> None:
    first, second = pick(files, "learner-0", "trained", 2)["unrolls"]
    first[5], second[5] = second[5], first[5]


def from_nowhere(files: Files) -> None:
    drop(files, "actor-0", "invoke", 3)
    drop(files, "actor-0", "ok", 3)


def wrong_version(files: Files) -> None:
    pick(files, "learner-0", "trained", 2)["unrolls"][0][4] += 1


def weights_back(files: Files) -> None:
    pick(files, "learner-0", "weights", 3)["version"] = 1


def actor_went_back(files: Files) -> None:
    swap = pick(files, "actor-0", "swap")
    files["actor-0"] += [swap | {"version": 3}, swap | {"version": 2}]


def actor_loaded_what_never_was(files: Files) -> None:
    files["actor-0"].append(pick(files, "actor-0", "swap") | {"version": 77})


def steps_counted_twice(files: Files) -> None:
    for event in files["learner-1"]:
        if event["event"] in ("trained", "checkpoint_begin", "checkpoint_commit"):
            event["trained_steps"] += 8


def saved_what_never_was(files: Files) -> None:
    pick(files, "learner-0", "checkpoint_begin")["trained_steps"] += 1


def restored_an_older_one(files: Files) -> None:
    begin = files["learner-1"][0]
    begin["trained_steps"], begin["version"] = 0, 0


def began_anew(files: Files) -> None:
    files["learner-1"][0]["restored"] = None


def unknown_life(files: Files) -> None:
    for event in files["actor-0"]:
        if event.get("learner_run_id") == 111:
            event["learner_run_id"] = 999
    drop(files, "actor-0", "ok")


def unbalanced(files: Files) -> None:
    pick(files, "front_end-1", "end")["queued"] += 1


def mixed_rows(files: Files) -> None:
    unrolls = pick(files, "learner-0", "trained", 2)["unrolls"]
    unrolls[0][6] = (
        unrolls[0][6][: len(unrolls[0][6]) // 2] + unrolls[1][6][len(unrolls[1][6]) // 2 :]
    )


def rows_of_another(files: Files) -> None:
    one = pick(files, "learner-0", "trained", 2)["unrolls"][0]
    one[6] = pick(files, "learner-0", "trained", 3)["unrolls"][0][6]


def rows_again(files: Files) -> None:
    one = pick(files, "learner-0", "trained", 4)["unrolls"][0]
    one[6] = pick(files, "learner-0", "trained", 2)["unrolls"][0][6]


def rows_repeated(files: Files) -> None:
    """As a policy server closes an unroll; an actor never does."""
    one = pick(files, "learner-0", "trained", 2)["unrolls"][0]
    rows = unpack_rows(one[6], (T + 1, WIDTH)).copy()
    rows[-1] = rows[-2]
    one[6] = pack_rows(rows)


PLANTED: list[tuple[str, Callable[[Files], None], str]] = [
    ("trained_once", trained_twice, "was trained and trained"),
    ("nothing_lost", acknowledged_and_lost, "was accepted and is nowhere"),
    ("nothing_lost", acknowledged_and_never_accepted, "the front end never accepted it"),
    ("nothing_invented", torn, "trained as another mark"),
    ("nothing_invented", columns_exchanged, "was sent as"),
    ("nothing_invented", from_nowhere, "no actor sent it"),
    ("nothing_invented", wrong_version, "was made with weights"),
    ("versions", weights_back, "published version 1 after 2"),
    ("versions", actor_went_back, "went back from version 3 to 2"),
    ("versions", actor_loaded_what_never_was, "never published"),
    ("steps", steps_counted_twice, "(steps, version), not"),
    ("steps", saved_what_never_was, "a state it never was in"),
    ("restores", restored_an_older_one, "newest committed"),
    ("restores", began_anew, "began anew"),
    ("resolved", unknown_life, "its learner life no history"),
    ("balance", unbalanced, "are accounted for"),
    ("patterns", mixed_rows, "in one unroll"),
    ("patterns", rows_of_another, "under the name of"),
    ("patterns", rows_again, "overlap"),
    ("patterns", rows_repeated, "is there 2 times"),
]


@pytest.mark.parametrize(
    ("validator", "plant", "text"), PLANTED, ids=[plant.__name__ for _, plant, _ in PLANTED]
)
def test_planted_violation_is_found(
    tmp_path: Path, validator: str, plant: Callable[[Files], None], text: str
) -> None:
    files = copy.deepcopy(GOOD)
    plant(files)

    report = check(write(tmp_path, files))

    assert any(text in found for found in report.violations.get(validator, [])), report.violations
    with pytest.raises(AssertionError, match="breaks a promise"):
        report.raise_if_violated()


@pytest.mark.parametrize(("step", "is_right"), [(64, True), (32, False)])
def test_save_that_a_life_went_on_from_was_committed_for_those_after_it(
    tmp_path: Path, step: int, is_right: bool
) -> None:
    """A learner may die between a save and its note of it. Seen to fail with that forgotten after
    the next life.
    """

    def begin(life: int, restored: int) -> Event:
        return {
            "event": "begin", "time_s": 10.0 * life, "role": "learner", "learner_run_id": life + 1,
            "life": life, "version": restored // 8, "trained_steps": restored, "unroll_length": T,
            "restored": f"step-{restored:012d}" if restored else None, "num_queued_at_most": 8,
        }  # fmt: skip

    def saved(event: str, at: int) -> Event:
        fields = {"name": f"step-{at:012d}", "trained_steps": at, "version": at // 8}
        return {"event": event, "time_s": 1.0 + at, **fields}

    saves = [saved(f"checkpoint_{what}", 32) for what in ("begin", "commit")]
    files: Files = {
        "learner-0": [begin(0, 0), *saves, saved("checkpoint_begin", 64)],
        "learner-1": [begin(1, 64)],
        "learner-2": [begin(2, step)],
    }

    assert ("restores" not in check(write(tmp_path, files)).violations) == is_right


def test_line_torn_in_the_middle_of_a_file_is_a_violation(tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD)
    path = folder / "actor-0.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-3], lines[-3][:20] + "\n", *lines[-2:]]))

    assert "readable" in check(folder).violations


def test_every_validator_has_a_violation_that_it_finds() -> None:
    assert {name for name, _, _ in PLANTED} | {"readable"} == VALIDATORS.keys()
