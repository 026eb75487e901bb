"""Where a call goes: doors, routes, peers, and who of them is picked."""
