"""The interactive gallery: a static site that opens from a folder, with no server and no network."""

from lucidate.report.gallery.site import About, build_gallery

__all__ = ["About", "build_gallery"]
