"""Training: measurements in, a partial denoiser out."""
