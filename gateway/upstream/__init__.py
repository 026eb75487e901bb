"""How backends are spoken to: connections, pools, exchanges."""
