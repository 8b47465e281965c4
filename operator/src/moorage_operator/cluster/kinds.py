"""The kinds that the operator writes, and the name under which it does."""

from typing import Final

from moorage_common.kube.resources import DEPLOYMENTS, DISRUPTION_BUDGETS, SERVICES

FIELD_MANAGER: Final = "moorage-operator"
"""Who we are to the API server: the manager of the fields that we apply, and the user agent."""

BY_KIND: Final = {resource.kind: resource for resource in (DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS)}
"""What a model may have made for it, by the kind in its manifest."""
