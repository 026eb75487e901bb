"""Ollama's native API, for its clients and before its servers.

Sources: docs/api.md of github.com/ollama/ollama, its server's source (v0.33) and the Python SDK 0.6.3.
"""
