"""RegDB: ten published splits of visible and thermal images."""
