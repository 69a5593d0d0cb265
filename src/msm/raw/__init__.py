"""Raw k-space of scanners: from files to coil maps, to a store, and to reconstructed volumes."""
