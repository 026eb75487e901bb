"""The fault ledger: evil upstreams, evil clients and the gateway's usage log, joined. `python -m bench faults`."""
