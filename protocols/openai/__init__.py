"""OpenAI's JSON vocabulary: only the fields that the gateway reads or writes. Everything else travels untouched."""
