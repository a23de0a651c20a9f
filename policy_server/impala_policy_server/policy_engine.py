"""PolicyEngine: takes observations of slots in, decides in batches, and builds unrolls.

Runs on the event loop and is called from nowhere else. `take` never waits; `decide` chooses the
actions of all observations that have none. Where rows are trained, complete unrolls go to the
`Outbox`, and new weights are taken over between two batches.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from impala_actor.environments.episode_statistics import EpisodeRecord
from impala_common.errors import InvalidRequestError
from impala_common.policy.action_sampler import choose_actions
from impala_common.policy.inference.backend import InferenceBackend, StepInputs
from impala_common.spec.specs import EnvironmentSpec, TensorSpec, UnrollSpec
from impala_policy_server.observation_decoder import Observations
from impala_policy_server.outbox import Outbox
from impala_policy_server.slot_arrays import Array
from impala_policy_server.slot_table import SlotTable
from impala_policy_server.slot_unrolls import CompleteUnrolls, SlotUnrolls

_LOG = logging.getLogger(__name__)

TakeWeights = Callable[[], tuple[int, Mapping[str, Array]] | None]
"""Returns (version, weights) if newer ones have arrived, else None. Does not wait."""


class Taken(NamedTuple):
    """What becomes of observations, as places of their slots, each int64 [n].

    Attributes:
      lost: not known: these slots have to be reset.
      repeated: repetitions of the slot's last one.
      answered: their action is known already: of repetitions, and of final observations.
    """

    lost: Array
    repeated: Array
    answered: Array


@dataclasses.dataclass
class EngineCounts:
    """Counters; they only ever go up."""

    observations: int = 0
    repetitions: int = 0
    decisions: int = 0
    batches: int = 0
    lost: int = 0
    abandoned_episodes: int = 0
    silent_slots: int = 0
    inference_s: float = 0.0


class PolicyEngine:
    """Slots, network and unrolls of one environment."""

    def __init__(
        self,
        environment: EnvironmentSpec,
        inference: InferenceBackend,
        agent_state: tuple[TensorSpec, ...],
        *,
        seed: int,
        max_slots: int,
        max_batch_size: int,
        unroll: UnrollSpec | None = None,
        max_unrolls: int = 1,
        outbox: Outbox | None = None,
        take_weights: TakeWeights = lambda: None,
        version: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts without slots.

        Args:
          environment: specification of observations and actions.
          inference: the network, for up to `max_batch_size` rows.
          agent_state: specification of its recurrent state.
          seed: of the draws.
          max_slots: slots at a time.
          max_batch_size: rows of one call of the network.
          unroll: specification of unrolls; None: nothing is trained.
          max_unrolls: unrolls of one message to the learner at the most.
          outbox: complete unrolls and episodes go there.
          take_weights: source of new weights.
          version: of the present weights.
          clock: time in seconds.
        """
        self.environment = environment
        self.table = SlotTable(environment, agent_state, max_slots)
        self.counts = EngineCounts()
        self.version = version
        self._action = environment.action
        self._inference = inference
        self._max_batch_size = max_batch_size
        self._random = np.random.default_rng(np.random.SeedSequence((seed, 0x5A)))
        self._unrolls = (
            None if unroll is None else SlotUnrolls(unroll, self.table.room, max_unrolls)
        )
        self._outbox = outbox
        self._take_weights = take_weights
        self._clock = clock

    @property
    def is_training(self) -> bool:
        """Whether rows become unrolls."""
        return self._unrolls is not None

    @property
    def num_pending(self) -> int:
        """Observations without an action."""
        return int(np.count_nonzero(self.table.is_pending))

    @property
    def is_batch_full(self) -> bool:
        """Whether every slot of a connected client that is in an episode waits for its action."""
        table = self.table
        is_playing = table.is_live & table.is_connected & ~table.has_ended
        return not (is_playing & ~table.is_pending).any()

    @property
    def has_room(self) -> bool:
        """Whether the learner takes unrolls fast enough to go on deciding."""
        return self._outbox is None or self._outbox.has_room(int(self.table.is_live.sum()))

    def open_slots(
        self, num_slots: int, client_number: int, *, is_evaluation: bool, is_greedy: bool
    ) -> Array:
        """Returns the places of a new client's slots; raises CapacityError."""
        places = self.table.open(
            num_slots,
            client_number,
            is_trained=self.is_training and not is_evaluation,
            is_greedy=is_greedy,
        )
        if self._unrolls is not None and self.table.room > self._unrolls.room:
            self._unrolls.grow(self.table.room)
        return places

    def close_slots(self, places: Array) -> None:
        """Frees the places of a client that is gone; episodes under way are truncated."""
        self._end(places[self.table.is_live[places]])
        self.table.close(places)

    def drop_silent(self, timeout_s: float) -> None:
        """Gives up slots that were not heard of for `timeout_s`, though they have their action."""
        table = self.table
        is_silent = table.is_live & ~table.is_pending
        is_silent &= self._clock() - table.heard_s > timeout_s
        places = np.flatnonzero(is_silent)
        if not places.size:
            return
        self.counts.silent_slots += len(places)
        _LOG.warning("%d slots were silent for %g s: given up", len(places), timeout_s)
        self._end(places)
        table.lose(places)

    def take(self, places: Array, given: Observations) -> Taken:
        """Takes over observations.

        Args:
          places: int64 [n]: of the slots in `given`.
          given: the observations.

        Raises:
          InvalidRequestError: the contract is broken; nothing was taken.
        """
        table = self.table
        is_live = table.is_live[places]
        distance = given.step_numbers - table.step_numbers[places]
        is_lost = ~is_live & ~given.is_first
        is_repeated = is_live & (distance == 0)
        is_new = ~is_lost & ~is_repeated
        self._validate(places, given, is_live & is_new, distance)
        lost, repeated = places[is_lost], places[is_repeated]
        answered = repeated[~table.is_pending[repeated]]
        self.counts.lost += len(lost)
        self.counts.repetitions += len(repeated)
        if not is_new.all():
            if not is_new.any():
                return Taken(lost, repeated, answered)
            places, given, is_live = places[is_new], given.select(is_new), is_live[is_new]
        self.counts.observations += len(places)
        ended = self._take_new(places, given, is_live)
        return Taken(lost, repeated, np.concatenate((answered, ended)))

    def decide(self) -> Array:
        """Chooses an action for every observation that has none; returns their places."""
        newest = self._take_weights()
        if newest is not None:
            self.version, weights = newest
            self._inference.load(weights)
        waiting = np.flatnonzero(self.table.is_pending)
        start_s = time.perf_counter()
        for start in range(0, len(waiting), self._max_batch_size):
            self._decide(waiting[start : start + self._max_batch_size])
        self.table.heard_s[waiting] = self._clock()
        inference_s = time.perf_counter() - start_s
        self.counts.inference_s += inference_s
        if self._outbox is not None:
            self._outbox.add_inference_time(inference_s)
        return waiting

    def begin_session(
        self, inference: InferenceBackend, version: int, unroll: UnrollSpec, max_unrolls: int
    ) -> None:
        """Goes on with another life of the learner: episodes stay, unrolls start anew.

        Args:
          inference: its network, with its weights; memory of another shape starts at 0.
          version: of the weights.
          unroll: its specification of unrolls.
          max_unrolls: unrolls of one message to it at the most.
        """
        self.version = version
        self._inference = inference
        self.table.require_agent_state(unroll.agent_state)
        self._unrolls = SlotUnrolls(unroll, self.table.room, max_unrolls)

    def _validate(
        self, places: Array, given: Observations, is_next: Array, distance: Array
    ) -> None:
        table = self.table
        wrong = is_next & (distance != 1)
        if wrong.any():
            index = int(np.flatnonzero(wrong)[0])
            last = int(table.step_numbers[places[index]])
            raise InvalidRequestError(
                f"slot {given.slots[index]}: expected step_number {last + 1} (or {last} again), "
                f"got {given.step_numbers[index]}"
            )
        early = is_next & table.is_pending[places]
        if early.any():
            slot = given.slots[int(np.flatnonzero(early)[0])]
            raise InvalidRequestError(
                f"slot {slot}: expected no observation before the last one's action was sent"
            )
        unopened = is_next & table.has_ended[places] & ~given.is_first
        if unopened.any():
            slot = given.slots[int(np.flatnonzero(unopened)[0])]
            raise InvalidRequestError(f"slot {slot}: expected is_first after the end of an episode")

    def _take_new(self, places: Array, given: Observations, is_live: Array) -> Array:
        """Takes over new observations; returns the places that need no action."""
        table = self.table
        had_ended = table.has_ended[places]
        is_abandoned = is_live & given.is_first & ~had_ended
        if is_abandoned.any():
            self.counts.abandoned_episodes += int(np.count_nonzero(is_abandoned))
            if self._unrolls is not None:
                self._unrolls.cut(places[is_abandoned])
        table.observe(
            places,
            given.step_numbers,
            given.leaves,
            given.rewards,
            given.is_first,
            self._clock(),
        )
        ended = given.terminated | given.truncated
        table.is_live[places] = True
        table.is_pending[places] = ~ended
        table.has_ended[places] = ended
        self._count_episodes(places, given, ended)
        if self._unrolls is not None:
            self._extend_unrolls(places, given, is_live, had_ended | is_abandoned)
        final = places[ended]
        if final.size:
            table.actions[final] = 0
            table.logits[final] = 0.0
            table.versions[final] = -1
            if self._unrolls is not None:
                self._unrolls.add_padding(final)
        return final

    def _extend_unrolls(
        self, places: Array, given: Observations, is_live: Array, is_padding: Array
    ) -> None:
        assert self._unrolls is not None
        table = self.table
        chosen = table.is_trained[places]
        if not chosen.any():
            return
        if not chosen.all():
            places, given = places[chosen], given.select(chosen)
            is_live, is_padding = is_live[chosen], is_padding[chosen]
        leaves = {name: array[places] for name, array in table.leaves.items()}
        going = slice(None) if is_live.all() else is_live
        slots = places[going]
        if slots.size:
            self._unrolls.add_result(
                slots,
                {name: array[going] for name, array in leaves.items()},
                given.is_first[going],
                given.rewards[going],
                given.terminated[going],
                given.truncated[going],
                is_padding[going],
            )
            self._send(self._unrolls.take_complete(slots))
        self._unrolls.begin(
            places,
            leaves,
            given.is_first,
            [state[places] for state in table.agent_state],
            table.previous_action[places],
            table.previous_reward[places],
        )

    def _decide(self, places: Array) -> None:
        table = self.table
        if table.agent_state:
            self._inference.agent_state = tuple(
                np.ascontiguousarray(state[places].swapaxes(0, 1)) for state in table.agent_state
            )
        logits = self._inference.infer(
            StepInputs(
                {name: array[places] for name, array in table.leaves.items()},
                table.is_first[places],
                table.previous_action[places],
                table.previous_reward[places],
            )
        )
        for state, new in zip(table.agent_state, self._inference.agent_state, strict=True):
            state[places] = new.swapaxes(0, 1)
        actions = self._choose(logits, table.is_greedy[places])
        table.actions[places] = actions
        table.logits[places] = logits
        table.versions[places] = self.version
        table.is_pending[places] = False
        self.counts.decisions += len(places)
        self.counts.batches += 1
        if self._unrolls is not None:
            self._unrolls.add_decision(places, actions, logits, self.version)

    def _choose(self, logits: Array, is_greedy: Array) -> Array:
        if not is_greedy.any():
            return choose_actions(self._action, logits, self._random)
        likeliest = choose_actions(self._action, logits, None)
        if is_greedy.all():
            return likeliest
        actions = choose_actions(self._action, logits, self._random)
        actions[is_greedy] = likeliest[is_greedy]
        return actions

    def _end(self, places: Array) -> None:
        """Ends the episodes of slots that are gone."""
        if self._unrolls is not None:
            self._send(self._unrolls.finish(places[self.table.is_trained[places]]))

    def _count_episodes(self, places: Array, given: Observations, ended: Array) -> None:
        table = self.table
        opening = places[given.is_first]
        if opening.size:
            table.returns[opening] = 0.0
            table.lengths[opening] = 0
        table.returns[places] += given.rewards
        table.lengths[places] += ~given.is_first
        if self._outbox is not None and ended.any():
            self._outbox.add_episodes(
                EpisodeRecord(float(table.returns[place]), int(table.lengths[place]), int(place))
                for place in places[ended & table.is_trained[places]]
            )

    def _send(self, complete: list[CompleteUnrolls]) -> None:
        assert self._outbox is not None
        for part in complete:
            self._outbox.put(part)
