"""The benchmark of the gateway: what a call and a relayed chunk cost. Run as `python -m bench overhead`."""
