"""Refusals and failures in the form of OpenAI's API: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from edgedistill.errors import BudgetError, ContextLengthError, EdgedistillError, OutOfMemoryError
from edgedistill.runtime.batch.live_sequence import QueueFullError, StoppedError

if TYPE_CHECKING:
    from starlette.responses import Response

RETRY_S = 2
"""Seconds after which a client that was sent away may ask again."""

_FAILURES: tuple[tuple[type[Exception], int, str], ...] = (
    (ContextLengthError, 400, "context_length_exceeded"),
    (QueueFullError, 429, "queue_full"),
    (StoppedError, 503, "shutting_down"),
    (BudgetError, 503, "out_of_memory"),
    (OutOfMemoryError, 503, "out_of_memory"),
    (MemoryError, 503, "out_of_memory"),
    (TimeoutError, 504, "timeout"),
)
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """What a client is told instead of an answer.

    Args:
        status: Of the response.
        message: A sentence: what was found, what is expected.
        param: The field of the request that it is about.
        code: A word for programs.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        """The JSON of the response."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The response itself."""
        headers = {"Retry-After": str(RETRY_S)} if self.status in (429, 503) else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def refusal(error: EdgedistillError, *, param: str | None = None) -> ApiError:
    """For what is found out before anything is computed: it is the request's."""
    if isinstance(error, BudgetError | OutOfMemoryError):
        return ApiError(503, str(error), code="out_of_memory")
    code = "context_length_exceeded" if isinstance(error, ContextLengthError) else "invalid_value"
    return ApiError(400, str(error), param=param, code=code)


def failure(error: Exception) -> ApiError:
    """For what happened to a request that was taken."""
    if isinstance(error, ApiError):
        return error
    for kind, status, code in _FAILURES:
        if isinstance(error, kind):
            return ApiError(status, str(error) or "The memory ran out.", code=code)
    if isinstance(error, EdgedistillError):
        return ApiError(500, str(error), code="generation_failed")
    return ApiError(500, f"The server failed ({type(error).__name__}); its log says more.", code="internal_error")
