"""Glance as an image source, through python-glanceclient, which is imported when the first request is made.

Downloads resume by HTTP Range. A token, or the secrets among the Keystone options, is registered for redaction before
it is used, so that no error or log can carry it.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from virtflow.activity import IDLE, Activity
from virtflow.errors import (
    ConfigurationError,
    ImageNotPublished,
    ImageUnavailable,
    InvalidRequest,
    NotFound,
    VirtflowError,
)
from virtflow.images.records import ImageRecord, ImageRecords
from virtflow.images.sources import find_by_sha1
from virtflow.images.upload import Upload
from virtflow.redaction import remember, scrub

_LONGEST_NAME = 255
_LONGEST_REASON = 300
_SETTLE_SECONDS = 0.5
_SECRET_OPTIONS = ("password", "token", "application_credential_secret", "passcode", "client_secret", "access_token")
_NOT_PROPERTIES = frozenset(
    {
        *("id", "name", "status", "visibility", "owner", "protected", "os_hidden", "tags", "created_at", "updated_at"),
        *("size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "disk_format", "container_format"),
        *("min_disk", "min_ram", "self", "file", "schema", "direct_url", "url", "locations", "stores"),
    }
)
"""Fields of Glance's image schema; everything else that is text is a property."""


class GlanceSource:
    """Images of one Glance.

    ``endpoint`` is its URL; None takes it from Keystone's catalog. ``token`` is sent as it is, for a Glance that asks
    for one; ``auth`` holds the options of a keystoneauth plugin (``auth_url``, ``username``, ``password``,
    ``project_name`` ...; ``auth_type`` is a password plugin unless given). ``timeout`` is in seconds and holds for
    connecting and for each read. ``verify`` is whether to check the TLS certificate, or the file to check it by.
    """

    name = "glance"

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        token: str | None = None,
        auth: Mapping[str, str] | None = None,
        region: str | None = None,
        interface: str = "public",
        timeout: float = 60.0,
        verify: bool | str = True,
    ) -> None:
        if endpoint is None and auth is None:
            raise ConfigurationError(group="glance", option="endpoint", reason="needed when there is no auth_url")
        self._endpoint = endpoint.rstrip("/").removesuffix("/v2") if endpoint else None
        self._token = token
        self._auth = dict(auth) if auth else None
        self._region = region
        self._interface = interface
        self._timeout = timeout
        self._verify = verify
        self._connecting = threading.Lock()
        self._connected: Any = None
        secrets = (token, *((auth or {}).get(option) for option in _SECRET_OPTIONS))
        for secret in filter(None, secrets):
            remember(secret)

    def get(self, name_or_id: str) -> ImageRecord:
        """Raises NotFound, InvalidRequest (field image) when several have that name, ImageUnavailable."""
        if not name_or_id or len(name_or_id) > _LONGEST_NAME or not name_or_id.isprintable():
            raise NotFound(kind="image", name=name_or_id)
        with _glance_errors(name_or_id):
            found = self._by_id(name_or_id) if _is_uuid(name_or_id) else None
            images = [found] if found is not None else self._by_name(name_or_id)
        if not images:
            raise NotFound(kind="image", name=name_or_id)
        if len(images) > 1:
            ids = ", ".join(sorted(str(image["id"]) for image in images[:5]))
            raise InvalidRequest(field="image", reason=f"{len(images)} images are called {name_or_id!r}: {ids}")
        if images[0]["status"] != "active":
            raise ImageUnavailable(image=name_or_id, reason=f"its status is {images[0]['status']}, not active")
        return _record(images[0])

    def list(self) -> ImageRecords:
        """Every active image that can be seen. Raises ImageUnavailable."""
        with _glance_errors("list"):
            return [_record(image) for image in self._client().images.list(filters={"status": "active"})]

    def find_by_sha1(self, sha1: str) -> ImageRecord:
        """The property ``image_id_sha1`` is a hint where to look first. Raises NotFound, ImageUnavailable."""
        with _glance_errors(sha1):
            filters = {"status": "active", "image_id_sha1": sha1}
            hinted = [_record(image) for image in self._client().images.list(filters=filters)]
        with contextlib.suppress(NotFound):
            return find_by_sha1(hinted, sha1)
        return find_by_sha1(self.list(), sha1)

    def read(self, record: ImageRecord, offset: int) -> Iterator[bytes]:
        """Raises ImageUnavailable when the connection breaks; what came until then is good to go on from."""
        with _glance_errors(record.label):
            response, body = self._open(record, offset)
            try:
                skip = offset if response.status_code == 200 else 0
                for chunk in body:
                    if skip >= len(chunk):
                        skip -= len(chunk)
                        continue
                    yield chunk[skip:] if skip else chunk
                    skip = 0
            finally:
                response.close()

    def reserve(self, draft: ImageRecord) -> None:
        """Make the image without data (Glance's status ``queued``). Raises ImageNotPublished."""
        with _publishing(draft.name):
            if self._by_id(draft.id) is None:
                self._client().images.create(
                    id=draft.id,
                    name=draft.name,
                    disk_format=draft.disk_format,
                    container_format="bare",
                    min_disk=draft.min_disk,
                    min_ram=draft.min_ram,
                    **{name: value for name, value in draft.properties.items() if _may_be_given(name)},
                )

    def publish(self, draft: ImageRecord, file: Path, activity: Activity = IDLE) -> ImageRecord:
        """Upload the content of the reserved image, and compare the checksum that Glance has found.

        Glance takes content once: what it has already is compared only. Raises ImageNotPublished.
        """
        with _publishing(draft.name), Upload(file, activity) as upload:
            image = self._settled(draft, activity)
            if image["status"] == "queued":
                self._client().images.upload(draft.id, upload, image_size=upload.size)
                image = self._by_id(draft.id)
            if image is None or image["status"] != "active":
                status = "gone" if image is None else image["status"]
                raise ImageNotPublished(image=draft.name, reason=f"it is {status} after the upload")
            record = _record(image)
            if record.checksum is None or upload.digest(record.checksum[0]) != record.checksum[1]:
                reason = "what Glance has got is not what was sent: the checksums differ"
                raise ImageNotPublished(image=draft.name, reason=reason)
        return record

    def discard(self, image_id: str) -> None:
        """Delete the image. Absent is fine. Raises ImageNotPublished."""
        with _publishing(image_id):
            if self._by_id(image_id) is not None:
                self._client().images.delete(image_id)

    def _settled(self, draft: ImageRecord, activity: Activity) -> Any:
        """The image, once nobody uploads to it: Glance takes a moment to notice that an uploader was killed."""
        while True:
            image = self._by_id(draft.id)
            if image is None:
                raise ImageNotPublished(image=draft.name, reason="somebody has deleted it")
            if image["status"] not in ("saving", "uploading", "importing"):
                return image
            activity.sleep(_SETTLE_SECONDS)

    def _open(self, record: ImageRecord, offset: int) -> tuple[Any, Any]:
        url = f"/v2/images/{urllib.parse.quote(record.id, safe='')}/file"
        # glanceclient percent-encodes the "=" of a header "bytes=N-", which Glance answers with 416. The hook that the
        # HTTP libraries have for authentication changes the request after that.
        hook = "auth" if self._auth is None else "requests_auth"
        options = {hook: _Range(offset)} if offset else {}
        response, body = self._client().http_client.get(url, **options)
        if response.status_code == 204:
            body = ()
        elif response.headers.get("Content-Type") != "application/octet-stream":
            response.close()
            raise ImageUnavailable(image=record.label, reason="the server's answer is no image data")
        elif response.status_code == 206 and not response.headers.get("Content-Range", "").startswith(
            f"bytes {offset}-"
        ):
            response.close()
            raise ImageUnavailable(image=record.label, reason="the server sent another part than it was asked for")
        return response, body

    def _by_id(self, image_id: str) -> Any:
        from glanceclient import exc

        try:
            return self._client().images.get(image_id)
        except exc.HTTPNotFound:
            return None

    def _by_name(self, name: str) -> Sequence[Any]:
        # Glance reads "in:a,b" as an operator, so such a name is looked for among all.
        filters = {"status": "active"} if name.startswith("in:") else {"name": name}
        return [image for image in self._client().images.list(filters=filters) if image["name"] == name]

    def _client(self) -> Any:
        with self._connecting:
            if self._connected is None:
                self._connected = self._connect()
        return self._connected

    def _connect(self) -> Any:
        from glanceclient.v2.client import Client

        if self._auth is None:
            transport: dict[str, Any] = {"insecure": self._verify is False}
            if isinstance(self._verify, str):
                transport["cacert"] = self._verify
            return Client(self._endpoint, token=self._token, timeout=self._timeout, **transport)
        from keystoneauth1 import loading, session

        options = dict(self._auth)
        # Told the version, keystoneauth asks for a token at once. Left to discover it, version 5.18 waits for its own
        # lock for ever when the answer is 401.
        versioned = options.get("auth_url", "").rstrip("/").endswith("/v3")
        auth_type = options.pop("auth_type", "v3password" if versioned else "password")
        plugin: Any = loading.get_plugin_loader(auth_type).load_from_options(**options)
        return Client(
            session=session.Session(auth=plugin, verify=self._verify, timeout=self._timeout),
            endpoint_override=self._endpoint,
            region_name=self._region,
            interface=self._interface,
        )


class _Range:
    """Asks for the bytes from ``offset`` on."""

    def __init__(self, offset: int) -> None:
        self._value = f"bytes={offset}-"

    def __call__(self, request: Any) -> Any:
        request.headers["Range"] = self._value
        return request


@contextlib.contextmanager
def _publishing(image: str) -> Iterator[None]:
    """Turn what goes wrong into ImageNotPublished."""
    try:
        with _glance_errors(image):
            yield
    except (ImageUnavailable, NotFound) as error:
        reason = error.fields.get("reason") or "Glance does not know it"
        raise ImageNotPublished(image=image, reason=reason) from error


@contextlib.contextmanager
def _glance_errors(image: str) -> Iterator[None]:
    """Turn what the libraries raise, and only that, into ImageUnavailable."""
    import glanceclient.exc
    import keystoneauth1.exceptions
    import requests

    try:
        yield
    except VirtflowError:
        raise
    except (glanceclient.exc.HTTPNotFound, keystoneauth1.exceptions.NotFound) as error:
        raise NotFound(kind="image", name=image) from error
    except (
        *(glanceclient.exc.BaseException, glanceclient.exc.ClientException, keystoneauth1.exceptions.ClientException),
        *(requests.RequestException, OSError),
    ) as error:
        text = " ".join(scrub(str(error)).split()) or type(error).__name__
        raise ImageUnavailable(image=image, reason=text[:_LONGEST_REASON]) from error


def _record(image: Mapping[str, Any]) -> ImageRecord:
    algorithm, digest, md5 = (image.get(key) for key in ("os_hash_algo", "os_hash_value", "checksum"))
    checksum = None
    if digest and algorithm in hashlib.algorithms_available:
        checksum = (str(algorithm), str(digest))
    elif md5:
        checksum = ("md5", str(md5))
    return ImageRecord(
        id=str(image["id"]),
        name=str(image.get("name") or ""),
        source=GlanceSource.name,
        disk_format=str(image.get("disk_format") or ""),
        size=image.get("size"),
        checksum=checksum,
        min_disk=int(image.get("min_disk") or 0),
        min_ram=int(image.get("min_ram") or 0),
        virtual_size=image.get("virtual_size"),
        properties={
            key: value for key, value in image.items() if key not in _NOT_PROPERTIES and isinstance(value, str)
        },
    )


def _may_be_given(name: str) -> bool:
    """Whether a property of this name can be set by whoever makes an image (Glance keeps ``os_glance`` to itself)."""
    return name not in _NOT_PROPERTIES and not name.startswith("os_glance")


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
