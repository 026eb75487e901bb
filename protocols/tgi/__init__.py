"""Hugging Face Text Generation Inference, as a backend: its native /generate, and the edges of its /v1.

Facts are from the source of its router, version 3.3.7 (router/src/{lib,server,validation,chat}.rs), and from the
answers that its integration tests recorded.
"""
