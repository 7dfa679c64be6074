"""Routes from a guide to an asset; each module has `make(guide, config, folder, stop) -> Asset`."""
