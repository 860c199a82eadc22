"""The image source that the configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtflow.images.sources import ImageSource

if TYPE_CHECKING:
    from virtflow.config import Config


def image_source(config: Config) -> ImageSource:
    """The local catalog, or Glance. Nothing is contacted yet."""
    if config.images.source == "catalog":
        from virtflow.images.catalog import LocalCatalog

        return LocalCatalog(config.images.catalog)
    from virtflow.images.glance import GlanceSource

    glance = config.glance
    auth = None
    if glance.auth_url is not None:
        names = ("auth_url", "username", "password", "project_name", "user_domain_name", "project_domain_name")
        auth = {name: value for name in names if (value := getattr(glance, name)) is not None}
    return GlanceSource(
        glance.endpoint,
        token=glance.token,
        auth=auth,
        region=glance.region_name,
        timeout=glance.timeout,
        verify=True if glance.cafile is None else str(glance.cafile),
    )
