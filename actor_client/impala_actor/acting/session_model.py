"""make_session_model: builds the network that a session's learner trains.

Called once per session, by the actor's loop and by the policy server; needs torch.
"""

from __future__ import annotations

from impala_actor.acting.learner_client import Session
from impala_common.errors import ModelError
from impala_common.models.contract import AgentModel
from impala_common.models.registry import make_model
from impala_common.models.weights import weights_specs
from impala_common.spec.specs import validate_same_weights


def make_session_model(session: Session) -> AgentModel:
    """Returns the run's network; SpecMismatchError if its tensors differ from the learner's."""
    try:
        model = make_model(session.model, session.unroll.environment, seed=0)
    except ModelError as error:
        raise ModelError(f"this actor, {session.actor.actor_id}: {error}") from error
    validate_same_weights(session.model.name, session.weights, weights_specs(model))
    return model
