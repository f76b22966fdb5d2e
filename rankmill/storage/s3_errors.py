"""Turn boto3's errors into the project's; the class decides whether a retry makes sense."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointProviderError,
    FlexibleChecksumError,
    NoCredentialsError,
    ParamValidationError,
)

from rankmill.errors import RankmillError, StorageRefused, StorageUnavailable

_REFUSED = {
    "AccessDenied": "access is denied",
    "403": "access is denied",
    "AccountProblem": "access is denied",
    "InvalidAccessKeyId": "the access key is not known",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "NoSuchBucket": "there is no such bucket",
    "InvalidBucketName": "the bucket name is not valid",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
    "QuotaExceeded": "the quota is used up",
    "NotImplemented": "the store cannot do that",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
NOT_THERE = {"NoSuchKey", "404", "NotFound"}
# Of stores without multipart uploads, or without a list of them.
NO_UPLOADS = {"NoSuchUpload", "NotImplemented", "MethodNotAllowed"}
THERE_ALREADY = {"PreconditionFailed", "412", "ConditionalRequestConflict"}


class CredentialsExpired(RankmillError):
    """The server refused the credentials because they have expired."""


@contextmanager
def s3_errors(what: str, uri: str) -> Iterator[None]:
    """Raise StorageRefused for errors of boto3 that last, StorageUnavailable for all others.

    Args:
        what: what failed, such as "cannot read".
        uri: the place, named in the message.

    Raises:
        CredentialsExpired: a retry with new credentials may succeed.
    """
    try:
        yield
    except ClientError as error:
        code = error_code(error)
        if code in _EXPIRED:
            raise CredentialsExpired(f"{what} {uri}: the credentials have expired") from error
        if code in _REFUSED:
            raise StorageRefused(f"{what} {uri}: {_REFUSED[code]}") from error
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        kind = StorageRefused if 400 <= status < 500 and status not in (408, 429) else None
        raise (kind or StorageUnavailable)(f"{what} {uri}: {code}") from error
    except (NoCredentialsError, ParamValidationError, EndpointProviderError) as error:
        raise StorageRefused(f"{what} {uri}: {one_line(error)}") from error
    except FlexibleChecksumError as error:
        raise StorageUnavailable(
            f"{what} {uri}: the store's checksum does not match the bytes it sent; if that lasts, "
            "set RANKMILL_S3_CHECKSUMS=when_required"
        ) from error
    except BotoCoreError as error:
        raise StorageUnavailable(f"{what} {uri}: {type(error).__name__}") from error
    except OSError as error:
        raise StorageUnavailable(f"{what} {uri}: {error.strerror or error}") from error


def error_code(error: ClientError) -> str:
    """Return S3's code of an error, such as `NoSuchKey`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def one_line(error: BotoCoreError) -> str:
    """Return an error's message without line ends and the last period."""
    return " ".join(str(error).split()).rstrip(".")
