"""SlotTable: what the policy server keeps of every slot, in arrays with one entry per slot.

Owned by the policy engine, on the event loop. A slot has a place, an index into these arrays, from
`open` to `close`. It is live from its first observation until nothing is heard of it any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from impala_common.errors import CapacityError
from impala_common.spec.specs import EnvironmentSpec, TensorSpec
from impala_policy_server.slot_arrays import Array, grow

_FIRST_ROOM = 16


class SlotTable:
    """Slots of all clients.

    Attributes, each an array with one entry per place:
      is_live: whether observations of the slot are known.
      is_pending: whether its newest observation has no action yet.
      has_ended: whether its newest observation ended an episode: it needs no action.
      is_connected: whether its client has a stream.
      is_trained: whether its rows become unrolls.
      is_greedy: whether its actions are not drawn.
      step_numbers: number of the newest observation.
      is_first: whether that opened an episode.
      previous_action, previous_reward: what led to it; 0 after a reset.
      actions, logits, versions: the newest decision and the version that made it.
      heard_s: time of the newest observation, or of its action if that was later.
      returns, lengths: of the episode under way.
      client_numbers, slots: whose slot it is, and its index there.
      leaves: leaf name -> newest observation, stacked.
      agent_state: recurrent state before the next decision, each [places, L, H].
    """

    def __init__(
        self, environment: EnvironmentSpec, agent_state: Sequence[TensorSpec], max_slots: int
    ) -> None:
        """Starts without slots.

        Args:
          environment: specification of observations and actions.
          agent_state: specification of the recurrent state of one slot.
          max_slots: slots at a time.
        """
        room = min(_FIRST_ROOM, max_slots)
        self._max_slots = max_slots
        self._free = list(range(room - 1, -1, -1))
        action = environment.action
        self._stack = environment.frame_stack if environment.frame_stack > 1 else 0

        self.is_live = np.zeros(room, np.bool_)
        self.is_pending = np.zeros(room, np.bool_)
        self.has_ended = np.zeros(room, np.bool_)
        self.is_connected = np.zeros(room, np.bool_)
        self.is_trained = np.zeros(room, np.bool_)
        self.is_greedy = np.zeros(room, np.bool_)
        self.step_numbers = np.zeros(room, np.int64)
        self.is_first = np.zeros(room, np.bool_)
        self.previous_action = np.zeros((room, *action.tensor.shape), action.tensor.dtype)
        self.previous_reward = np.zeros(room, np.float32)
        self.actions = np.zeros_like(self.previous_action)
        self.logits = np.zeros((room, action.num_logits), np.float32)
        self.versions = np.zeros(room, np.int64)
        self.heard_s = np.zeros(room, np.float64)
        self.returns = np.zeros(room, np.float64)
        self.lengths = np.zeros(room, np.int64)
        self.client_numbers = np.zeros(room, np.int64)
        self.slots = np.zeros(room, np.int64)
        self.leaves = {
            leaf.name: np.zeros((room, *leaf.shape), leaf.dtype)
            for leaf in environment.observation_leaves
        }
        self.agent_state = [np.zeros((room, *spec.shape), np.float32) for spec in agent_state]

    @property
    def room(self) -> int:
        """Places there are, free ones included."""
        return len(self.is_live)

    def open(
        self, num_slots: int, client_number: int, *, is_trained: bool, is_greedy: bool
    ) -> Array:
        """Returns int64 [num_slots]: places for the slots of a client.

        Raises:
          CapacityError: there is no room for so many.
        """
        if num_slots > len(self._free) + self._max_slots - self.room:
            raise CapacityError(
                f"{num_slots} more slots would be more than {self._max_slots} (--max-slots)"
            )
        while num_slots > len(self._free):
            self._grow(min(2 * self.room, self._max_slots))
        places = np.array([self._free.pop() for _ in range(num_slots)], np.int64)
        self.is_trained[places] = is_trained
        self.is_greedy[places] = is_greedy
        self.client_numbers[places] = client_number
        self.slots[places] = np.arange(num_slots)
        return places

    def close(self, places: Array) -> None:
        """Frees places."""
        self.lose(places)
        self._free.extend(places.tolist())

    def lose(self, places: Array) -> None:
        """Forgets what is known of these slots; they keep their places."""
        self.is_live[places] = False
        self.is_pending[places] = False

    def require_agent_state(self, agent_state: Sequence[TensorSpec]) -> None:
        """Makes recurrent states of another specification than there are, all 0."""
        if [state.shape[1:] for state in self.agent_state] != [spec.shape for spec in agent_state]:
            self.agent_state = [
                np.zeros((self.room, *spec.shape), np.float32) for spec in agent_state
            ]

    def observe(
        self,
        places: Array,
        step_numbers: Array,
        leaves: Mapping[str, Array],
        rewards: Array,
        is_first: Array,
        now_s: float,
    ) -> None:
        """Takes over the newest observations of slots; frames are stacked here.

        Args:
          places: int64 [n].
          step_numbers: int64 [n].
          leaves: leaf name -> [n, ...], a single frame where frames are stacked.
          rewards: float32 [n].
          is_first: bool [n].
          now_s: time.
        """
        self.step_numbers[places] = step_numbers
        self.heard_s[places] = now_s
        self.is_first[places] = is_first
        self.previous_action[places] = self.actions[places]
        self.previous_reward[places] = rewards
        opening = places[is_first]
        if opening.size:
            self.previous_action[opening] = 0
            self.previous_reward[opening] = 0.0
        for name, values in leaves.items():
            target = self.leaves[name]
            if not self._stack:
                target[places] = values
                continue
            target[places, :-1] = target[places, 1:]
            target[places, -1] = values
            if opening.size:
                target[opening] = values[is_first][:, None]

    def _grow(self, room: int) -> None:
        self._free[:0] = range(room - 1, self.room - 1, -1)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, grow(value, room))
        self.leaves = {name: grow(array, room) for name, array in self.leaves.items()}
        self.agent_state = [grow(array, room) for array in self.agent_state]
