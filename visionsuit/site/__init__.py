"""What an administrator changes at run time, with defaults from the settings; site counters."""
