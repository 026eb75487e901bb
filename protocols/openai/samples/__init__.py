"""Sample answers: what a server of OpenAI's API answers on each endpoint, with no model behind it.

Owns the shapes and the refusal of requests that a real server would refuse. It refuses time, chance and
pacing: ids and dates are given, and whoever sends a `Stream` decides when. `answer.sample` is the door;
`gateway.upstream.mock` and the tests use it.
"""
