"""Every error of this house: one tree, and each class carries its HTTP status, its type and its code.

Whatever is no `BitswitchError` becomes a constant text at the door (status 500): what went wrong
inside is for the log, not for the caller.
"""

from __future__ import annotations

from typing import ClassVar


class BitswitchError(Exception):
    """Something a caller can be told.

    Attributes:
        message: one sentence that names what was wrong and what would be right.
        param: the field of the request the fault lies in, if one does.
        retry_after: seconds after which trying again makes sense, if it does.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class InvalidRequestError(BitswitchError):
    """The request's own fault."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidModelError(InvalidRequestError):
    """The text of ``model`` is not one the grammar knows."""

    code = "invalid_model"


class NotAClassifierError(InvalidRequestError):
    """A mix without a classification head was asked to classify."""

    code = "model_not_a_classifier"


class InputTooLongError(InvalidRequestError):
    """More inputs, characters or mixes than the limits allow."""

    status = 413
    code = "input_too_long"


class UnsupportedMediaTypeError(InvalidRequestError):
    """A body, or an image in it, of another kind than is read."""

    status = 415
    code = "unsupported_media_type"


class DigestMismatchError(InvalidRequestError):
    """An upload that is not what its sender says it is."""

    code = "digest_mismatch"


class InvalidSwitchError(InvalidRequestError):
    """An uploaded file that is no switch of this base."""

    status = 422
    code = "invalid_switch"


class RouteAbstainedError(InvalidRequestError):
    """``auto`` found no switch near enough to the input."""

    status = 422
    code = "route_abstained"


class AuthenticationError(BitswitchError):
    """No key, or one that is not known."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class PermissionError(BitswitchError):  # noqa: A001 - the name OpenAI's clients know
    """A known key whose role does not reach this far."""

    status = 403
    type = "permission_error"
    code = "permission_denied"


class ModelNotFoundError(BitswitchError):
    """Unknown, or not for this tenant: the same answer for both."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"The model {name!r} does not exist or you do not have access to it.", param="model")


class NotFoundError(BitswitchError):
    """No such path or thing."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ConflictError(BitswitchError):
    """It cannot be done as things stand, and trying again will not help."""

    status = 409
    type = "conflict_error"
    code = "conflict"


class NotFiniteError(BitswitchError):
    """The model's answer at the mix asked for holds infinities or NaNs."""

    status = 422
    type = "invalid_request_error"
    code = "answer_not_finite"


class OverloadedError(BitswitchError):
    """The queue is full."""

    status = 429
    type = "overloaded_error"
    code = "overloaded"


class RateLimitedError(BitswitchError):
    """The tenant has used what it may, for now."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class QuotaExceededError(BitswitchError):
    """The tenant has stored what it may; waiting does not help."""

    status = 403
    type = "permission_error"
    code = "quota_exceeded"


class RequestCancelledError(BitswitchError):
    """The client went away before its answer."""

    status = 499
    type = "invalid_request_error"
    code = "request_cancelled"


class StoredSwitchError(BitswitchError):
    """A switch that was fit to be published cannot be served now: damaged, or of another format or base."""

    code = "switch_unusable"


class UnavailableError(BitswitchError):
    """The server is starting, stopping or mending itself."""

    status = 503
    type = "server_error"
    code = "unavailable"


class DeadlineExceededError(BitswitchError):
    """The request waited longer than it may."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
