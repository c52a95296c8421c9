"""Errors a person may cause or see.

* AppError
  + InvalidInput     422  what was sent makes no sense (MalformedRequest 400, TooLarge 413, UnsupportedType 415)
  + NotSignedIn      401  nobody is signed in, or the token is no longer good
  + PaymentRequired  402  not enough credits
  + NotPermitted     403  you may see it, but not do this
  + NotFound         404  it is not there, or you may not know that it is
  + Conflict         409  it is in a state in which this cannot be done
  + TooMany          429  too often; `retry_after_s` says when again
  + Unavailable      503  storage, device or disk cannot serve this now

A feature's error subclasses a kind, has a stable `code`, and a sentence that a person can act on:
what is wrong, why, and the limit. Anything else that is raised is a bug: the edges log it and show no detail.
"""

from typing import Any, ClassVar


class AppError(Exception):
    """Base of all errors that a caller may see.

    Args:
        message: one sentence for a person.
        field: name of the request field at fault, as the caller spelled it.
        hint: what to do about it.
    """

    http_status: ClassVar[int]
    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint

    def as_json(self) -> dict[str, Any]:
        """The inside of the common error shape, without the request id."""
        shape: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.field:
            shape["field"] = self.field
        if self.hint:
            shape["hint"] = self.hint
        return shape


class InvalidInput(AppError):
    http_status = 422
    code = "invalid_input"


class MalformedRequest(InvalidInput):
    http_status = 400
    code = "malformed"


class TooLarge(InvalidInput):
    http_status = 413
    code = "too_large"


class UnsupportedType(InvalidInput):
    http_status = 415
    code = "unsupported_type"


class NotSignedIn(AppError):
    http_status = 401
    code = "not_signed_in"


class PaymentRequired(AppError):
    http_status = 402
    code = "payment_required"


class NotPermitted(AppError):
    http_status = 403
    code = "not_permitted"


class NotFound(AppError):
    http_status = 404
    code = "not_found"


class Conflict(AppError):
    http_status = 409
    code = "conflict"


class TooMany(AppError):
    http_status = 429
    code = "too_many"

    def __init__(self, message: str, *, retry_after_s: int, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, field=field, hint=hint)
        self.retry_after_s = retry_after_s


class Unavailable(AppError):
    http_status = 503
    code = "unavailable"
