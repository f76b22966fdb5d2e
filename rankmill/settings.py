"""The settings from the environment, as one typed class; no other module reads them."""

from __future__ import annotations

import base64
import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from rankmill.broker_url import is_sentinel, passwords
from rankmill.errors import InputError
from rankmill.setting_types import BrokerUrl, DeviceName, Memory, Names, Places
from rankmill.wrong_value import wrong_value

_SECRET_CHARS = 16
_SECRET_KEY_BYTES = 24  # the least of the Standard Webhooks specification


class Settings(BaseSettings):
    """The `RANKMILL_…` variables; docs/settings.md is generated from these descriptions."""

    model_config = SettingsConfigDict(
        env_prefix="RANKMILL_", frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    broker_url: BrokerUrl = Field(
        "redis://localhost:6379/0",
        description="URL of the Redis broker: redis://, rediss://, redis+socket:///path, or "
        "sentinel://HOST:26379;sentinel://HOST:26379",
    )
    broker_master: str | None = Field(
        None,
        validate_default=True,
        description="Name by which the sentinels of a sentinel:// broker know the primary",
    )
    broker_sentinel_user: str | None = Field(
        None, description="User of the sentinels, which may differ from Redis's [no user]"
    )
    broker_sentinel_password: SecretStr | None = Field(
        None, description="Password of the sentinels, which may differ from Redis's [none]"
    )
    broker_tls: bool = Field(
        False, description="TLS to the sentinels of a sentinel:// broker and to its primary"
    )
    broker_ca: str | None = Field(
        None, description="PEM file of the CA that signed the broker's certificate [the system's]"
    )
    allowed_prefixes: Places = Field(
        None,
        description="Prefix allow-list: folders, s3://bucket/prefix/ and hf:// that jobs may use, "
        "comma-separated [any]",
    )
    s3_requester_pays: bool = Field(
        False, description="Pay for requests to buckets whose owner lets the requester pay"
    )
    s3_unsigned: bool = Field(
        False, description="Read public buckets without credentials; requests are not signed"
    )
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Bucket in the URL's path or in its host name; auto: boto3 chooses"
    )
    s3_checksums: Literal["auto", "when_required"] = Field(
        "auto",
        description="Checksums of S3 requests and answers; when_required: for stores that refuse "
        "or confuse them; auto: boto3's own setting",
    )
    allowed_models: Names = Field(
        None,
        description="Models that jobs may use: hub ids, owner/*, folders, comma-separated [any]",
    )
    remote_code_models: Names = Field(
        None, description="Models that may run their own Python code, listed in the same way [none]"
    )
    model_queues: Names = Field(
        None,
        description="Models whose shards have their own queue, comma-separated; set it in "
        "every process [none]",
    )
    device: DeviceName = Field(
        "auto",
        description="Device of the workers: auto (every visible GPU, else the CPU), cpu, cuda "
        "(every visible GPU, or an error), cuda:N (one visible GPU)",
    )
    device_reason: str | None = Field(
        None,
        description="Reason for the device; `run` and `worker` set it for the workers they start",
    )
    threads: int = Field(
        0, ge=0, description="CPU threads of a worker; 0: one for each core it may use"
    )
    fused: Literal["off", "on"] = Field(
        "off",
        description="Element-wise kernels of a GPU fused by torch.compile; not measured yet, and "
        "needs triton and a C compiler",
    )
    numa: bool = Field(
        True, description="Keep a GPU's worker on the CPU cores next to the GPU, if there are 4"
    )
    claim_s: float = Field(
        30.0, gt=0, description="Seconds without a heartbeat after which a worker loses its shard"
    )
    reconcile_s: float = Field(5.0, gt=0, description="Seconds between scans for lost shards")
    trusted_tries: int = Field(
        2, ge=1, description="Starts of a shard before it is searched for a poison row"
    )
    max_tries: int = Field(
        6,
        ge=1,
        description="Starts of a shard, not counting isolated poison rows, before its job fails",
    )
    shards_per_worker: int = Field(
        3, ge=1, description="Shards of a job in flight for each live worker"
    )
    models: Path | None = Field(
        None, description="Folder of pulled models; no other hub model is loaded [the hub's cache]"
    )
    window_pairs: int = Field(
        4096, ge=1, description="Rows that a worker reads, tokenizes and sorts at a time"
    )
    scratch: str | None = Field(
        None, description="Folder for temporary files on local disk [the system's]"
    )
    prepare_memory: Memory = Field(
        "1GB", description="Memory for joins and sorts, such as 4GB; beyond it they use the disk"
    )
    max_files: int = Field(
        200_000, ge=1, description="Maximum files below an input's folder or glob"
    )
    max_columns: int = Field(
        2000, ge=1, description="Maximum columns of an input; each nested key counts"
    )
    max_line_bytes: int = Field(
        64 * 2**20, ge=1, description="Maximum bytes of one line of JSONL, TSV or a TREC run"
    )
    max_unpacked_ratio: int = Field(
        300,
        ge=1,
        description="Maximum bytes that each byte of a .gz or .zst text file may unpack to, "
        "beyond 256 MiB",
    )
    tick_s: float = Field(30.0, gt=0, description="Seconds between checks for due schedules")
    keep_finished_s: int = Field(
        7 * 24 * 3600, ge=1, description="Seconds that Redis keeps a finished job"
    )
    stall_s: float = Field(
        600.0, ge=10, description="Seconds without progress after which a busy worker is unhealthy"
    )
    load_s: float = Field(
        3600.0, gt=0, description="Seconds of loading a model that count as progress"
    )
    model_turn_s: float = Field(
        120.0, ge=0, description="Seconds for which a worker prefers shards of its loaded model"
    )
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of this process's metrics; 0: none"
    )
    metrics_host: str = Field("127.0.0.1", description="Address that the metrics port listens on")
    runtime: str | None = Field(
        None, description="Folder of the workers' heartbeat files [the system's temporary]"
    )
    webhook_url: SecretStr | None = Field(
        None,
        description="http:// or https:// URL that gets the events of jobs; set it for every worker",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        validate_default=True,
        description="Secret that signs these events: at least 16 characters, or whsec_ and base64",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Format of the log: json, text, or auto (text on a terminal)"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Minimum log level"
    )
    flower_basic_auth: SecretStr | None = Field(
        None, description="Logins of Flower: user:password, comma-separated [no login]"
    )

    @field_validator("broker_master")
    @classmethod
    def _check_master(cls, name: str | None, info: ValidationInfo) -> str | None:
        if not name and is_sentinel(info.data.get("broker_url", "")):
            raise PydanticCustomError(
                "setting", "is needed with sentinel://: the name in `sentinel monitor NAME …`"
            )
        return name

    @field_validator("webhook_url")
    @classmethod
    def _check_webhook(cls, url: SecretStr | None) -> SecretStr | None:
        """Refuse an invalid URL; it may hold a secret, so the message does not quote it."""
        if url is not None and not _is_web_address(url.get_secret_value()):
            raise ValueError("must be http:// or https:// with a host, and no user or password")
        return url

    @field_validator("webhook_secret")
    @classmethod
    def _check_signed(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is None and info.data.get("webhook_url") is not None:
            raise ValueError("is needed with RANKMILL_WEBHOOK_URL, to sign what is sent")
        if secret is not None and len(secret.get_secret_value()) < _SECRET_CHARS:
            raise ValueError(f"must have at least {_SECRET_CHARS} characters")
        if secret is not None and secret.get_secret_value().startswith("whsec_"):
            encoded = secret.get_secret_value().removeprefix("whsec_")
            try:
                key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
            except ValueError:
                raise ValueError("must have base64 after whsec_") from None
            if len(key) < _SECRET_KEY_BYTES:
                raise ValueError(
                    f"must have at least {_SECRET_KEY_BYTES} bytes in base64 after whsec_"
                )
        return secret

    @field_validator("s3_unsigned")
    @classmethod
    def _check_unsigned(cls, is_unsigned: bool, info: ValidationInfo) -> bool:
        if is_unsigned and info.data.get("s3_requester_pays"):
            raise ValueError("excludes RANKMILL_S3_REQUESTER_PAYS: a requester that pays must sign")
        return is_unsigned

    def secrets(self) -> list[str]:
        """Return the values that no log line may show."""
        found: list[str | None] = [*passwords(self.broker_url)]
        if self.broker_sentinel_password is not None:
            found.append(self.broker_sentinel_password.get_secret_value())
        if self.flower_basic_auth is not None:
            logins = self.flower_basic_auth.get_secret_value().split(",")
            found += [login.partition(":")[2] for login in logins]
        for hidden in (self.webhook_url, self.webhook_secret):
            found += [hidden.get_secret_value()] if hidden is not None else []
        return [secret for secret in found if secret]


# Read by the command line, by Docker Compose and the image, or passed on to started processes.
_NOT_SETTINGS = {"RANKMILL_PROFILE", "RANKMILL_DATA", "RANKMILL_VERSION", "RANKMILL_DEVICE_REASON"}
_OF_TESTS = ("RANKMILL_TEST_", "RANKMILL_CHAOS_", "RANKMILL_HOSTILE_")


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the process's settings; the environment is read once.

    Raises:
        InputError: a variable's value is wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise InputError(
            wrong_value(error, named=lambda field: f"{variable(field)}:", is_secret=is_secret)
        ) from error


@contextmanager
def with_variables(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Change variables of this process for the block, and read the settings again.

    Args:
        changes: the values by the names of the variables; None unsets one.
    """
    before = {name: os.environ.get(name) for name in changes}

    def use(values: Mapping[str, str | None]) -> None:
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        settings.cache_clear()

    use(changes)
    try:
        yield
    finally:
        use(before)


def variable(field: str) -> str:
    """Return the name of a setting's variable."""
    return f"{Settings.model_config['env_prefix']}{field.upper()}"


def is_secret(field: str) -> bool:
    """Return whether a setting may hold a password or a token."""
    return field == "broker_url" or "SecretStr" in str(Settings.model_fields[field].annotation)


def unknown_variables(names: Iterable[str] | None = None) -> list[str]:
    """Return a line for each RANKMILL_ variable that is not a setting.

    Args:
        names: the variables; those of the environment for None.
    """
    prefix = str(Settings.model_config["env_prefix"])
    known = {prefix + name.upper() for name in Settings.model_fields}
    lines = []
    for name in sorted(os.environ if names is None else names):
        is_other = name in _NOT_SETTINGS or name.startswith(_OF_TESTS)
        if not name.upper().startswith(prefix) or name.upper() in known or is_other:
            continue
        near = difflib.get_close_matches(name.upper(), known, n=1)
        advice = f"did you mean {near[0]}?" if near else "docs/settings.md lists all settings"
        lines.append(f"{name} is not a setting and has no effect; {advice}")
    return lines


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    is_plain = url.isascii() and url.isprintable() and " " not in url
    has_login = parts.username is not None or parts.password is not None
    is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return is_plain and is_web and not has_login


# The checkout, which holds the demo model and the example data.
CHECKOUT = Path(__file__).resolve().parent.parent
