"""POST /v1/responses in front of backends that only chat: requests, whole answers and streams, without stored state."""
