"""The Python client of a bitswitch server, for threads and for asyncio. Imports nothing of the server.

with Client("http://127.0.0.1:8000") as client:
    client.publish("trec6.switch.safetensors")
    client.classify("auto", "Who wrote Hamlet?").data[0].label
"""

from bitswitch_client.answers import (
    Action,
    Answer,
    Classification,
    Classified,
    Embedded,
    Embedding,
    KeyInfo,
    Mix,
    Model,
    Neighbour,
    Part,
    Published,
    Route,
    Routing,
    Sharing,
    State,
    Timing,
    Used,
    Verdict,
)
from bitswitch_client.call import Call
from bitswitch_client.client import AsyncClient, Client
from bitswitch_client.errors import (
    ApiError,
    AuthenticationError,
    ClientError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RouteAbstainedError,
    ServerError,
    TimedOutError,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
)
from bitswitch_client.retries import Retries

__all__ = [
    "Action",
    "Answer",
    "ApiError",
    "AsyncClient",
    "AuthenticationError",
    "Call",
    "Classification",
    "Classified",
    "Client",
    "ClientError",
    "ConflictError",
    "Embedded",
    "Embedding",
    "InvalidRequestError",
    "KeyInfo",
    "Mix",
    "Model",
    "Neighbour",
    "NotFoundError",
    "OverloadedError",
    "Part",
    "PermissionDeniedError",
    "Published",
    "Retries",
    "Route",
    "RouteAbstainedError",
    "Routing",
    "ServerError",
    "Sharing",
    "State",
    "TimedOutError",
    "Timing",
    "UnavailableError",
    "UnexpectedAnswerError",
    "UnreachableError",
    "Used",
    "Verdict",
]
