"""The wire: bytes to values and back.

Pure and synchronous: no sockets, clock, logging, metrics or configuration. Everything here can be tested as
``assert f(b"...") == ...``.
"""
