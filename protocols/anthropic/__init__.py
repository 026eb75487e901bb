"""Anthropic's Messages API: its requests, answers, events, errors and models, to the hub's words and back.

Source: Anthropic's API reference and the types of its Python SDK (2.12), version 2026-10-21 of the API and 2023-06-01.
"""
