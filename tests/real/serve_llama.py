"""Run llama.cpp's own HTTP server until standard input ends: `python serve_llama.py MODEL SLOTS CONTEXT`.

A process of its own, because the server cannot be stopped otherwise and its crash must not be the tests'. Prints its
address once it listens. Started by `llama_server.LlamaServer`.
"""

from __future__ import annotations

import sys

import xllamacpp


def main(model: str, slots: int, context: int) -> None:
    """Serve *model* with *slots* generations at a time of at most *context* tokens each."""
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"tiny"}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.cpuparams.n_threads = 1
    # Each call draws alike whichever came before it: a random model may go on for ever, one call in some thousands.
    params.sampling.seed = 7
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.endpoint_metrics = True
    params.endpoint_slots = True
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
