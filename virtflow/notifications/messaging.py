"""The driver for a message broker, through oslo.messaging (``pip install virtflow[messaging]``).

Importing this costs most of a second, so nothing imports it but the table of drivers, when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

from virtflow.eventletless import without_eventlet

with without_eventlet():
    # oslo.messaging takes what it needs from oslo.service, whose default is eventlet.
    from oslo_service import backend

    if backend.get_backend_type() is None:
        backend.init_backend(backend.BackendType.THREADING)
    import oslo_messaging


class MessagingDriver:
    """Sends versioned notifications to ``settings["transport_url"]``, topic ``settings["topic"]``."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        conf = cfg.ConfigOpts()
        conf([], project="virtflow", default_config_files=[], default_config_dirs=[])
        transport = oslo_messaging.get_notification_transport(conf, url=settings["transport_url"])
        self._notifier = oslo_messaging.Notifier(
            transport, driver="messagingv2", topics=[settings["topic"]], publisher_id="virtflow", retry=1
        )

    def send(self, document: Mapping[str, Any]) -> None:
        """Hand it to the broker. Any error of oslo.messaging."""
        notifier = self._notifier.prepare(publisher_id=document["publisher_id"])
        tell = notifier.error if document["priority"] == "ERROR" else notifier.info
        tell({"message_id": document["message_id"]}, document["event_type"], document["payload"])
