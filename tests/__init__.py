"""The tests: `unit` (pure or in-process), `wire` (real sockets), `real` (real model servers)."""
