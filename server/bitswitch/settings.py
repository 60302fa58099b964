"""The server's settings: one declaration for command line, environment and file, in that order of say.

A bad value or an unknown key stops the start, with a sentence for each. Only `cli` builds these; the
parts receive values.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ByteSize, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as UnreadableError

from bitswitch.core import InputLimits, RouteMode

_LIMITS = InputLimits()
PREFIX = "BITSWITCH_"
# Set by others under our prefix: our own client, and Kubernetes for a service of our name.
_NOT_OURS = ("URL", "CONFIG")
_KUBERNETES = ("SERVICE_", "PORT_")


class SettingsError(ValueError):
    """The settings are wrong; one line per fault, naming the setting and what would be right."""


class Settings(BaseSettings):
    """All settings; each may be given as ``--name``, ``BITSWITCH_NAME`` or a key of the TOML file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, validate_default=True)

    base: Path = Field(description="Folder of the base model's checkpoint.")
    store: Path = Field(description="Folder of the switch store; made if missing.")
    database_url: SecretStr | None = Field(
        None,
        description="The catalog's URL, sqlite:///file or postgresql://user:password@host/database;"
        " a file in the store if not given.",
    )
    blobs_url: str | None = Field(
        None,
        description="Where switch files are kept: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix"
        " or file:///folder; in the store if not given.",
    )
    blobs_cache_bytes: ByteSize = Field(
        ByteSize(8 * 2**30),
        ge=0,
        description="Disk for copies of switch files that are kept in an object store, such as 8GiB.",
    )
    collect_after: float = Field(
        3600.0,
        ge=1,
        le=365 * 86_400,
        allow_inf_nan=False,
        description="Seconds that a deleted switch's file is kept for requests that resolved it before; more"
        " than request_timeout.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen at.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen at; 0 takes any free one.")
    device: str = Field(
        "cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="Where the base is resident: cpu, cuda, cuda:1 …"
    )
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        None, description="Type of the resident weights; as the checkpoint has them if not given."
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads of the model; all if not given."
    )
    queue_limit: int = Field(
        4096,
        ge=1,
        description="Requests that may wait, large ones in pieces of a thousand tokens; one more is refused"
        " with 429.",
    )
    max_queue_seconds: float = Field(
        0.5,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds a request may wait for others; one that would wait longer is refused with 429,"
        " unless hardly any are before it.",
    )
    verify_every: float = Field(
        600.0,
        ge=0,
        le=31_536_000,
        allow_inf_nan=False,
        description="Seconds between two proofs that the resident weights are the base's; 0 for none.",
    )
    drain_seconds: float = Field(
        0.5,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds after SIGTERM in which requests are still taken, but the server is not ready.",
    )
    grace_seconds: float = Field(
        25.0,
        ge=1,
        le=3600,
        allow_inf_nan=False,
        description="Seconds that what was taken may take to be answered once no more is taken.",
    )
    batch_rows: int = Field(64, ge=1, description="Inputs in one forward pass, at most.")
    batch_tokens: int = Field(8192, ge=1, description="Padded tokens in one forward pass, at most.")
    resident_bytes: ByteSize = Field(
        ByteSize(512 * 2**20), ge=0, description="Memory for switches kept ready, such as 512MiB."
    )
    pin: tuple[str, ...] = Field(
        (),
        description="Switches kept ready from the start: name, tenant/name, name@version or name@alias; in"
        ' the environment a JSON list, such as ["a", "b@prod"].',
    )
    request_timeout: float = Field(
        60.0, gt=0, le=86_400, allow_inf_nan=False, description="Seconds a request may take."
    )
    max_inputs: int = Field(256, ge=1, description="Inputs in one request, at most.")
    max_text_chars: int = Field(_LIMITS.text_chars, ge=1, description="Characters in one text, at most.")
    max_image_bytes: ByteSize = Field(
        ByteSize(_LIMITS.image_bytes), ge=1024, description="Size of one image's file, at most, such as 4MiB."
    )
    max_image_pixels: int = Field(
        _LIMITS.image_pixels, ge=1, description="Width times height of one image, at most."
    )
    max_request_pixels: int = Field(
        _LIMITS.request_pixels, ge=1, description="Width times height of all images of one request, at most."
    )
    max_body_bytes: ByteSize = Field(
        ByteSize(8 * 2**20), ge=1024, description="Size of a JSON body, at most, such as 8MiB."
    )
    max_upload_bytes: ByteSize = Field(
        ByteSize(256 * 2**20), ge=1024, description="Size of an uploaded switch, at most, such as 256MiB."
    )
    router_k: int = Field(10, ge=1, le=1000, description="Nearest query vectors that vote in 'auto'.")
    router_quantile: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Share of a task's own inputs that 'auto' does not abstain from, about; with more of them"
        " it answers more that are of no task.",
    )
    router_mode: RouteMode = Field(
        RouteMode.MIX,
        description="What 'auto' answers with: 'mix', the shares of the votes as weights, or 'top1', the"
        " switch with the most votes alone.",
    )
    api_key: Annotated[SecretStr, Field(min_length=8)] | None = Field(
        None,
        description="One key of the tenant 'default', as admin; beside those of 'bitswitch keys create'.",
    )
    key_secret: Annotated[SecretStr, Field(min_length=32)] | None = Field(
        None,
        description="What keys are hashed with, for servers that share a database; the store's own file if"
        " not given.",
    )
    metrics_public: bool = Field(False, description="Serve /metrics without a key.")
    limit_requests_per_minute: int | None = Field(
        None, ge=1, description="Requests a tenant may make per minute; no limit if not given."
    )
    limit_tokens_per_minute: int | None = Field(
        None, ge=1, description="Tokens a tenant may have read per minute; no limit if not given."
    )
    limit_concurrent_requests: int | None = Field(
        None, ge=1, description="Requests of a tenant answered at once; no limit if not given."
    )
    limit_stored_bytes: ByteSize | None = Field(
        None, ge=1, description="Size of all a tenant's switch files, such as 2GiB; no limit if not given."
    )
    limit_stored_switches: int | None = Field(
        None, ge=1, description="Versions a tenant may have stored; no limit if not given."
    )
    limit_batch_inputs: int | None = Field(
        None, ge=1, description="Inputs in one request of a tenant; max_inputs if not given."
    )
    limit_input_tokens: int | None = Field(
        None, ge=1, description="Tokens in one input of a tenant; no limit if not given."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_json: bool = Field(False, description="Log lines as JSON.")
    docs: bool = Field(True, description="Serve the API's documentation at /docs, without a key.")

    @model_validator(mode="after")
    def _keep_for_requests(self) -> Self:
        if self.collect_after <= self.request_timeout:
            raise ValueError(
                f"collect_after ({self.collect_after:g} s) is not more than request_timeout"
                f" ({self.request_timeout:g} s): a request could lose the switch that it resolved"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given outright wins over the environment, and that over the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def read_settings(config: Path | None = None, **given: Any) -> Settings:  # noqa: ANN401 - checked by pydantic
    """Settings from the command line (``given``; None means not given), the environment and a TOML file.

    Raises:
        SettingsError: a value is wrong, a key is unknown, something needed is missing, or the file
            cannot be read.
    """
    if config is not None and not config.is_file():
        raise SettingsError(f"config: there is no file {config}; give the path of a TOML file")
    _check_environment()

    class WithFile(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        return WithFile(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [_sentence(one) for one in error.errors(include_url=False)]
        raise SettingsError("\n".join(lines)) from None
    except UnreadableError as error:  # the only one that is: a list in the environment
        raise SettingsError(f'{error}; there it is JSON, such as ["a", "b"]') from error
    except ValueError as error:  # not TOML
        raise SettingsError(f"config: {config} cannot be read: {error}") from error


def _check_environment() -> None:
    known = {name.upper() for name in Settings.model_fields}
    for variable in sorted(os.environ):
        name = variable.removeprefix(PREFIX)
        if name == variable or name in known or name in _NOT_OURS or name.startswith(_KUBERNETES):
            continue
        close = get_close_matches(name, known, n=1)
        meant = f"; {PREFIX}{close[0]} was meant?" if close else f"; known are {', '.join(sorted(known))}"
        raise SettingsError(f"{variable} is no setting{meant}")


def _sentence(error: ErrorDetails) -> str:
    if not error["loc"]:  # of several settings at once; its input holds all of them, secrets too
        return error["msg"].removeprefix("Value error, ")
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        close = get_close_matches(name, Settings.model_fields, n=1)
        return f"{name} is no setting" + (f"; {close[0]} was meant?" if close else "")
    if error["type"] == "missing":
        return f"{name} is missing; give --{name.replace('_', '-')} or {PREFIX}{name.upper()}"
    field = Settings.model_fields.get(name)
    shown = "" if name in ("api_key", "key_secret", "database_url") else f" ({error['input']!r})"
    described = f" — {field.description}" if field and field.description else ""
    return f"{name}{shown}: {error['msg']}{described}"
