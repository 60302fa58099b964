"""The server's settings: one declaration for command line, environment and file, in that order of say.

A bad value or an unknown key stops the start, with a sentence for each. Only `cli` builds these; the
parts receive values.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as UnreadableError

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
    queue_limit: int = Field(1024, ge=1, description="Requests that may wait; one more is refused with 429.")
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
    max_text_chars: int = Field(65_536, ge=1, description="Characters in one text, at most.")
    max_body_bytes: ByteSize = Field(
        ByteSize(8 * 2**20), ge=1024, description="Size of a JSON body, at most, such as 8MiB."
    )
    max_upload_bytes: ByteSize = Field(
        ByteSize(256 * 2**20), ge=1024, description="Size of an uploaded switch, at most, such as 256MiB."
    )
    router_k: int = Field(10, ge=1, le=1000, description="Nearest query vectors that vote in 'auto'.")
    api_key: Annotated[SecretStr, Field(min_length=8)] | None = Field(
        None, description="Key that callers send as 'Authorization: Bearer'; needed off the loopback address."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_json: bool = Field(False, description="Log lines as JSON.")
    docs: bool = Field(True, description="Serve the API's documentation at /docs, without a key.")

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
    name = ".".join(map(str, error["loc"])) or "settings"
    if error["type"] == "extra_forbidden":
        close = get_close_matches(name, Settings.model_fields, n=1)
        return f"{name} is no setting" + (f"; {close[0]} was meant?" if close else "")
    if error["type"] == "missing":
        return f"{name} is missing; give --{name.replace('_', '-')} or {PREFIX}{name.upper()}"
    field = Settings.model_fields.get(name)
    shown = "" if name == "api_key" else f" ({error['input']!r})"
    described = f" — {field.description}" if field and field.description else ""
    return f"{name}{shown}: {error['msg']}{described}"
