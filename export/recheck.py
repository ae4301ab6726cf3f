"""`fxpullback verify`: the certificate of a file, made again from the file alone."""

from fxpullback.export.certify import recheck

__all__ = ["recheck"]
