"""What operators ask the gateway itself: health, metrics, models."""
