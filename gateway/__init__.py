"""The gateway program: sockets, time, policy, counting, processes.

Owns everything that needs a clock or a socket. What would still make sense in a packet viewer lives in
`protocols` instead; imports run gateway -> protocols, never back.
"""

__version__ = "0.1.0"
