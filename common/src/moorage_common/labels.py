"""The names that parts of Moorage know each other's objects by: API group, labels, annotations, ports."""

from typing import Final

API_GROUP: Final = "moorage.dev"

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "moorage"
MODEL_LABEL: Final = f"{API_GROUP}/model"
"""On every pod and child of an InferenceModel; the value is the InferenceModel's name."""

MODEL_UID_LABEL: Final = f"{API_GROUP}/model-uid"
"""On every pod of an InferenceModel; the value is the InferenceModel's uid."""

REVISION_LABEL: Final = f"{API_GROUP}/revision"
"""On every pod of an InferenceModel; the value is the hash of the pod template that it was made from."""

APPLIED_HASH_ANNOTATION: Final = f"{API_GROUP}/applied-hash"
"""On every child: the hash of what the operator last asked for, so that a removed field is seen too."""

TRIED_UNDER_ANNOTATION: Final = f"{API_GROUP}/tried-under"
"""On a Deployment whose pods were refused: the name of the rules (quotas, limits …) that it was last tried under."""

RESTARTED_AT_ANNOTATION: Final = f"{API_GROUP}/restarted-at"
"""On an InferenceModel: a new time here, in RFC 3339, starts its pods anew, as `kubectl rollout restart` does."""

IDEMPOTENCY_LABEL: Final = f"{API_GROUP}/idempotency-key"
"""On an InferenceModel that the management API has made: the hash of the Idempotency-Key and of who sent it."""

IDEMPOTENCY_BODY_ANNOTATION: Final = f"{API_GROUP}/idempotency-body"
"""On the same: the hash of the request's body."""

RUNTIME_PORT: Final = 8000
RUNTIME_PORT_NAME: Final = "http"
SERVICE_PORT: Final = 80

ASLEEP_ANNOTATION: Final = f"{API_GROUP}/asleep"
"""On a Deployment that has no replicas because nobody used the model, not because somebody stopped it."""
