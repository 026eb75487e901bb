"""HTTP/1.1 messages (RFC 9110, RFC 9112): heads, body framing, and the states that a connection goes through."""
