"""Everything that is set from outside, in one typed class; nothing else reads the environment."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from rankmill.errors import InputError


class Settings(BaseSettings):
    """Read from `RANKMILL_…` variables; the README's table is made from these descriptions."""

    model_config = SettingsConfigDict(env_prefix="RANKMILL_", frozen=True)

    broker_url: str = Field(
        "redis://localhost:6379/0",
        pattern=r"^(rediss?|redis\+socket)://.",
        description="Redis that carries the work: redis://, rediss:// or redis+socket:///path",
    )
    device: str = Field("auto", description="Where a worker scores: auto, cpu, cuda")
    threads: int = Field(
        0, ge=0, description="CPU threads of a worker; 0: as many as it may use cores"
    )
    claim_s: float = Field(
        30.0, gt=0, description="Seconds after which a silent worker's shard is given to another"
    )
    reconcile_s: float = Field(
        5.0, gt=0, description="Seconds between looks for shards that nobody works on"
    )
    trusted_tries: int = Field(
        2, ge=1, description="Starts of a shard before it is suspected of killing its worker"
    )
    max_tries: int = Field(
        6, ge=1, description="Starts of a shard, not counting found killers, before its job fails"
    )
    shards_per_worker: int = Field(
        3, ge=1, description="Shards of one job in flight for each live worker"
    )
    window_pairs: int = Field(
        4096, ge=1, description="Rows a worker reads, tokenizes and sorts by length at a time"
    )
    scratch: str | None = Field(
        None, description="Folder on local disk for what does not fit in memory [the system's]"
    )
    prepare_memory: str = Field(
        "1GB", description="Memory that joining and sorting may use before they take to the disk"
    )
    keep_finished_s: int = Field(
        7 * 24 * 3600, ge=1, description="Seconds that Redis remembers a finished job"
    )


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once.

    Raises:
        InputError: a variable's value is wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "RANKMILL_" + ".".join(map(str, first["loc"])).upper()
        raise InputError(f"{name}: {first['msg']}") from error


# The checkout that the demo model and data come with.
CHECKOUT = Path(__file__).resolve().parent.parent
