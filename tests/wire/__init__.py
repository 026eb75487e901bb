"""The gateway as a process between real sockets: scripted upstreams behind it, raw clients before it."""
