"""Reading images and scans, simulating acquisitions, and the store that training reads."""
