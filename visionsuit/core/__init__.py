"""What every feature stands on: settings, errors, identity, permissions, paging. Knows no feature, does no I/O."""
