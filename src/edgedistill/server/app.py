"""The routes of a server, as one ASGI application."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from edgedistill.bundle.verification_record import sentence
from edgedistill.errors import EdgedistillError
from edgedistill.server.access import Access
from edgedistill.server.chat import chat_completions, read_chat
from edgedistill.server.completions import completions
from edgedistill.server.errors import ApiError, refusal
from edgedistill.server.fields import read_fields
from edgedistill.server.metrics import CONTENT_TYPE
from edgedistill.server.responses import responses

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from edgedistill.server.service import Service


def create_app(service: Service, *, report: Callable[[Exception], object] = lambda _: None) -> ASGIApp:
    """The application that answers for ``service``; ``report`` is told of bugs."""
    routes = [
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/responses", responses, methods=["POST"]),
        Route("/v1/models", _models),
        Route("/v1/models/{name:path}", _model),
        Route("/v1/embeddings", _embeddings, methods=["POST"]),
        Route("/tokenize", _tokenize, methods=["POST"]),
        Route("/detokenize", _detokenize, methods=["POST"]),
        Route("/tokenizer_info", _tokenizer_info),
        Route("/health", _health),
        Route("/metrics", _metrics),
    ]
    app = Starlette(routes=routes, exception_handlers={ApiError: _told, HTTPException: _http})
    app.state.service = service
    protected: ASGIApp = Access(app, service=service, routes=[route.path for route in routes], report=report)
    if service.options.cors_origins:
        protected = CORSMiddleware(
            protected, allow_origins=service.options.cors_origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    return protected


async def _told(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:80]
    said = {
        404: f"There is no {path} here; /v1/chat/completions, /v1/responses, /v1/completions and /v1/models are.",
        405: f"{path} does not take {request.method}.",
    }
    return ApiError(error.status_code, said.get(error.status_code, str(error.detail)), code="not_found").response()


async def _health(request: Request) -> Response:
    service: Service = request.app.state.service
    return JSONResponse(
        {
            "status": "ok",
            "running": service.batch.running,
            "waiting": service.batch.waiting,
            "places": service.batch.places,
        }
    )


async def _metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    return PlainTextResponse(service.metrics.text(service.batch), media_type=CONTENT_TYPE)


async def _embeddings(_: Request) -> Response:
    raise ApiError(
        400,
        "This server has no embeddings: its models are trained to answer, and their hidden states compare no texts. "
        "Use a model made for embeddings.",
        code="unsupported",
    )


def _described(service: Service) -> dict[str, Any]:
    """The served model: what clients look for, and what the bundle is."""
    manifest = service.model.bundle.manifest
    return {
        "id": service.options.name,
        "object": "model",
        "created": service.created,
        "owned_by": "edgedistill",
        "max_model_len": service.limit,
        "edgedistill": {
            "identity": service.identity,
            "family": manifest.model.family,
            "source": manifest.source.get("name"),
            "profile": manifest.profile.get("name"),
            "context_length": manifest.model.context_length,
            "vocab_size": manifest.model.vocab_size,
            "verification": {"summary": sentence(manifest.verification), "record": manifest.verification},
        },
    }


async def _models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_described(request.app.state.service)]})


async def _model(request: Request) -> Response:
    service: Service = request.app.state.service
    service.require_name(request.path_params["name"])
    return JSONResponse(_described(service))


async def _tokenize(request: Request) -> Response:
    """Token ids of a text (``prompt`` as vLLM's server, ``content`` as llama.cpp's) or of rendered ``messages``."""
    service: Service = request.app.state.service
    fields = await read_fields(request, service.options.max_body)
    if fields.take("messages") is not None:
        tokens = list((await read_chat(fields, service)).asked.tokens)
    else:
        content, prompt = fields.text("content"), fields.text("prompt")
        text = prompt if prompt is not None else content
        if text is None:
            raise ApiError(400, "Expected `prompt`, `content` or `messages`.", param="prompt", code="invalid_value")
        special = fields.flag("add_special_tokens")
        # Without `add_special_tokens` llama.cpp adds none, vLLM the beginning of the sequence.
        raw = prompt is not None if special is None else special
        try:
            tokens = await asyncio.to_thread(_encoded, service, text, raw)
        except EdgedistillError as error:
            raise refusal(error) from error
    return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": service.limit})


async def _tokenizer_info(request: Request) -> Response:
    """What clients that leave tokens to the server ask for first (lm_eval): special tokens and the template."""
    model = request.app.state.service.model
    info = model.bundle.manifest.model
    ids = {"bos_token": info.bos_token_id, "eos_token": next(iter(info.eos_token_ids), None)}
    ids["pad_token"] = info.pad_token_id
    special = {name: None if token is None else model.tokenizer.id_to_token(token) for name, token in ids.items()}
    return JSONResponse({**special, "chat_template": model.template.source or None})


def _encoded(service: Service, text: str, raw: bool) -> list[int]:
    if raw:
        return service.model.encode(text, raw=True)
    tokens: list[int] = service.model.tokenizer.encode(text, add_special_tokens=False).ids
    return tokens


async def _detokenize(request: Request) -> Response:
    service: Service = request.app.state.service
    fields = await read_fields(request, service.options.max_body)
    tokens, size = fields.take("tokens"), service.model.bundle.manifest.model.vocab_size
    if not isinstance(tokens, list) or not all(type(token) is int and 0 <= token < size for token in tokens):
        fields.refuse("tokens", f"a list of token ids below {size}")
    text = await asyncio.to_thread(service.decode, tokens)
    return JSONResponse({"prompt": text, "content": text})
