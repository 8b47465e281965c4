"""What can go wrong when we talk to the API server: one class for each thing that is handled differently."""


class ApiError(Exception):
    """The API server refused a request. `message` is the server's own, cut, and carries no request body."""

    retry_after = 0.0
    """Seconds that the server asks us to wait before we ask again."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message[:500]}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFoundError(ApiError):
    """The object, or its kind, does not exist (404)."""


class ConflictError(ApiError):
    """Another manager owns a field, or the object is not the expected one (409)."""


class ForbiddenError(ApiError):
    """RBAC or an admission rule says no (403)."""


class UnauthorizedError(ApiError):
    """Our credentials are not, or no longer, accepted (401)."""


class InvalidError(ApiError):
    """The server does not accept the object's content (422)."""


class ThrottledError(ApiError):
    """The server asks us to wait (429)."""

    def __init__(self, reason: str, message: str, retry_after: float) -> None:
        super().__init__(429, reason, message)
        self.retry_after = retry_after


class InvalidNameError(Exception):
    """A name that no object can have; it would make another path of a request."""


class UnavailableError(Exception):
    """The API server cannot be reached, or answered 5xx: try again, if it says so only after a while."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BrokenError(UnavailableError):
    """The connection could not be made, or broke; what was known before is still true."""


BY_STATUS: dict[int, type[ApiError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidError,
}
