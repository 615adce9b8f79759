"""The routes of `litelens serve` for teaching a model from photos, below /v1/draft. A deployed API does not have them.

Only pages of this server may call them: a request with another host or origin is refused, so that no other website can
change the draft.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from litelens.api.problems import InvalidRequest, MethodNotAllowed, UnknownPath
from litelens.api.response_schemas import ClassifyAnswer, Model, classification_of
from litelens.core.errors import BundleError, ReportedError
from litelens.core.formats import media_type_of_suffix
from litelens_client.learning.draft import MAX_PHOTO_BYTES, Draft, DraftBusy, DraftProgress, NameTaken, NotInDraft
from litelens_client.learning.embeddings import default_cache
from litelens_client.learning.errors import TrainingError

_LOCAL_HOSTS = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?", re.IGNORECASE)

T = TypeVar("T")

# Reads the body up to a limit of bytes, beyond which it raises RequestTooLarge with this advice.
ReadBody = Callable[[int, str], Awaitable[bytes]]


class DraftRefused(ReportedError):
    """The draft does not allow what was asked for."""

    code, status, title = "draft_refused", HTTPStatus.UNPROCESSABLE_ENTITY, "The draft does not allow this"


class DraftInUse(ReportedError):
    """Another request uses the draft."""

    code, status, title = "draft_busy", HTTPStatus.CONFLICT, "The draft is in use"
    retry_after = 1


class DraftNameTaken(ReportedError):
    """Another class has this name, or a model that is not replaced."""

    code, status, title = "draft_name_taken", HTTPStatus.CONFLICT, "The name is taken"


class DraftMissing(ReportedError):
    """The draft has no such class or photo, or nothing was learned yet."""

    code, status, title = "draft_not_found", HTTPStatus.NOT_FOUND, "The draft does not have this"


class NotLocal(ReportedError):
    """The request comes from another website."""

    code, status, title = "forbidden", HTTPStatus.FORBIDDEN, "Only pages of this server may do this"


class DraftClassAnswer(msgspec.Struct, frozen=True):
    """A class, and the ids of its photos, oldest first."""

    name: str
    photos: list[str]


class DraftAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The draft. `learned` is the content of metrics.json, and absent if nothing was learned yet.

    It is `outdated` if classes or photos have changed since. `learning` is true while the draft is learned from, and
    `progress` says how many of how many photos were read for that.
    """

    classes: list[DraftClassAnswer]
    learning: bool = False
    progress: DraftProgress | msgspec.UnsetType = msgspec.UNSET
    learned: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    outdated: bool | msgspec.UnsetType = msgspec.UNSET


class PhotoAnswer(msgspec.Struct, frozen=True):
    """A photo that was added."""

    id: str


class RenameBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The new name of a class."""

    name: str


class MoveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"class_name": "class"}):
    """The class to move a photo to."""

    class_name: str


class KeepBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name of the bundle to write in models/."""

    name: str


class Teaching:
    """Responds to requests for the draft."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._thread = ThreadPoolExecutor(max_workers=2, thread_name_prefix="draft")
        self._routes: dict[str, dict[str, Callable[..., Response]]] = {
            "": {"GET": self._get, "DELETE": self._discard},
            "/classes/(?P<name>[^/]+)": {
                "PUT": self._add_class,
                "PATCH": self._rename_class,
                "DELETE": self._remove_class,
            },
            "/classes/(?P<name>[^/]+)/photos": {"POST": self._add_photo},
            "/classes/(?P<name>[^/]+)/photos/(?P<photo>[^/]+)": {
                "GET": self._get_photo,
                "PATCH": self._move_photo,
                "DELETE": self._remove_photo,
            },
            "/learn": {"POST": self._learn},
            "/classify": {"POST": self._classify},
            "/keep": {"POST": self._keep},
            "/bundle.zip": {"GET": self._download},
        }

    async def respond(self, request: Request, path: str, read_body: ReadBody, request_id: str) -> Response:
        """Return the response to a request; `path` is the part after /v1/draft. Raises ReportedError."""
        # Checked before the body is read: another website could send large ones.
        _check_is_local(request)
        function, parameters = self._find(path, request.method)
        body = await read_body(MAX_PHOTO_BYTES, "send a smaller photo")
        loop = asyncio.get_running_loop()
        response = await loop.run_in_executor(
            self._thread, lambda: _reported(lambda: function(body=body, request_id=request_id, **parameters))
        )
        return _unless_known(response, request)

    def _find(self, path: str, method: str) -> tuple[Callable[..., Response], dict[str, str]]:
        for pattern, methods in self._routes.items():
            if found := re.fullmatch(pattern, path):
                if method not in methods:
                    raise MethodNotAllowed(*methods)
                return methods[method], found.groupdict()
        raise UnknownPath("This path does not exist; docs/learn.md lists the paths of the draft.")

    def _get(self, **_: object) -> Response:
        classes = [DraftClassAnswer(each.name, list(each.photos)) for each in self._draft.classes()]
        learned, progress = self._draft.measurements(), self._draft.progress
        answer = DraftAnswer(
            classes,
            learning=self._draft.is_learning,
            progress=msgspec.UNSET if progress is None else progress,
            learned=msgspec.UNSET if learned is None else learned,
            outdated=msgspec.UNSET if learned is None else self._draft.is_outdated(),
        )
        response = _json(answer)
        response.headers["cache-control"] = "private, no-cache"
        response.headers["etag"] = f'"{hashlib.sha256(response.body).hexdigest()}"'
        return response

    def _discard(self, **_: object) -> Response:
        self._draft.discard()
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _add_class(self, name: str, **_: object) -> Response:
        self._draft.add_class(name)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _rename_class(self, name: str, body: bytes, **_: object) -> Response:
        new_name = _decode(body, RenameBody, 'Send the new name as JSON, such as {"name": "cup"}.').name
        self._draft.rename_class(name, new_name)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _remove_class(self, name: str, **_: object) -> Response:
        self._draft.remove_class(name)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _add_photo(self, name: str, body: bytes, **_: object) -> Response:
        return _json(PhotoAnswer(self._draft.add_photo(name, body)), HTTPStatus.CREATED)

    def _get_photo(self, name: str, photo: str, **_: object) -> Response:
        data, suffix = self._draft.read_photo(name, photo)
        headers = {
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "private, max-age=31536000, immutable",
        }
        return Response(data, headers=headers, media_type=media_type_of_suffix(suffix))

    def _move_photo(self, name: str, photo: str, body: bytes, **_: object) -> Response:
        other = _decode(body, MoveBody, 'Send the class to move to as JSON, such as {"class": "cup"}.').class_name
        self._draft.move_photo(name, photo, other)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _remove_photo(self, name: str, photo: str, **_: object) -> Response:
        self._draft.remove_photo(name, photo)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _learn(self, **_: object) -> Response:
        with default_cache() as cache:
            return _json(self._draft.learn(cache))

    def _keep(self, body: bytes, **_: object) -> Response:
        name = _decode(body, KeepBody, 'Send the name of the model as JSON, such as {"name": "pets"}.').name
        with default_cache() as cache:
            return _json(self._draft.keep(name, cache), HTTPStatus.CREATED)

    def _classify(self, body: bytes, request_id: str, **_: object) -> Response:
        bundle, prediction = self._draft.classify(body)
        found = msgspec.structs.asdict(classification_of(prediction))
        return _json(ClassifyAnswer(model=Model(bundle.name, bundle.version), request_id=request_id, **found))

    def _download(self, **_: object) -> Response:
        headers = {"Content-Disposition": 'attachment; filename="bundle.zip"'}
        return Response(self._draft.archive(), headers=headers, media_type="application/zip")


def _check_is_local(request: Request) -> None:
    """Raise NotLocal if the request comes from another website, or names another host (DNS rebinding)."""
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if not _LOCAL_HOSTS.fullmatch(host) or origin not in (None, f"http://{host}"):
        raise NotLocal("Open the page of this server at http://127.0.0.1 and try again.")


def _decode(body: bytes, body_type: type[T], advice: str) -> T:
    """Decode a body of JSON; raises InvalidRequest with this advice."""
    try:
        return msgspec.json.decode(body, type=body_type)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(advice) from error


def _unless_known(response: Response, request: Request) -> Response:
    """Return the response, or 304 if the client has it already."""
    tag = response.headers.get("etag")
    if tag is None or tag not in request.headers.get("if-none-match", ""):
        return response
    return Response(None, HTTPStatus.NOT_MODIFIED, {name: response.headers[name] for name in ("cache-control", "etag")})


def _reported(function: Callable[[], T]) -> T:
    """Call a function, and turn errors of the draft into errors that the client receives."""
    try:
        return function()
    except DraftBusy as error:
        raise DraftInUse(str(error)) from error
    except NameTaken as error:
        raise DraftNameTaken(str(error)) from error
    except NotInDraft as error:
        raise DraftMissing(str(error)) from error
    except (TrainingError, BundleError) as error:
        raise DraftRefused(str(error)) from error


def _json(answer: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(answer), status, {"Cache-Control": "no-store"}, media_type="application/json")
