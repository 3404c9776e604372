"""What each event means: functions of (state, effects, event). They change `state`, and tell `effects` what to do."""
